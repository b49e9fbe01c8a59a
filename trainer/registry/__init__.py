"""The registry of released models and training files, in a folder or object storage.

May import every package of ``trainer``.
"""
