"""Child processes: starting, supervising, stopping.

May import ``schemas`` and ``retrail_runtime``.
"""
