"""The encoder: loads a model and encodes texts, with optimisations for CPUs.

May import ``schemas`` and ``retrail_runtime``.
"""
