"""``trajectory-events`` to ``judged-events``: validates events and judges reasonings.

May import ``streams.loop`` and what that may.
"""
