"""The local stack: broker, Milvus and workers as child processes of ``retrail up``."""
