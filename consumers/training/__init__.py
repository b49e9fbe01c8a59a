"""Labelled pairs to training runs and releases.

May import ``trainer``, ``schemas`` and ``retrail_runtime``.
"""
