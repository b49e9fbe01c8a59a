"""The loop of a stream worker on Faust: consume, process, acknowledge, commit.

May import ``schemas`` and ``retrail_runtime``.
"""
