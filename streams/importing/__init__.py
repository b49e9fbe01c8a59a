"""Files of trajectories: read, normalised into events, and mined without a broker.

May import every package of ``streams``.
"""
