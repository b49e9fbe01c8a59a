"""Compares a child with its parent: nDCG@10 and the gate.

May import ``trainer.model`` and ``trainer.data``.
"""
