"""Training data of a run: selection, caps, weights, held-out queries, the training file.

May import ``schemas`` and ``retrail_runtime``.
"""
