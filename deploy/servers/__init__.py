"""Servers for a try-out: Apache Kafka and Milvus Lite.

May import ``deploy.processes``.
"""
