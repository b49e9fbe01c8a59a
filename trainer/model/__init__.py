"""The encoder: loads a model, encodes texts, speeds that up on CPUs.

May import ``schemas`` and ``retrail_runtime``.
"""
