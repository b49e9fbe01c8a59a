"""Files of trajectories, read into events and mined without a broker.

May import every package of ``streams``.
"""
