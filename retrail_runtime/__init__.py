"""What every process needs: Kafka and Milvus clients, metrics and health, logging, files, signals.

May import ``schemas``.
"""
