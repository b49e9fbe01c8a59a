"""Searches the collection behind the alias with the model that built it.

May import ``trainer``, ``schemas`` and ``retrail_runtime``.
"""
