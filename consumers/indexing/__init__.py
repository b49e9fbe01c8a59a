"""Releases and documents to Milvus collections and the alias.

May import ``trainer``, ``schemas`` and ``retrail_runtime``.
"""
