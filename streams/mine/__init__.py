"""``judged-events`` to ``labelled-pairs``: a fold over each partition.

May import ``streams.loop`` and what that may.
"""
