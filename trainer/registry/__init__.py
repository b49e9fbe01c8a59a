"""Where released models and training files are kept: a folder or object storage.

May import every package of ``trainer``.
"""
