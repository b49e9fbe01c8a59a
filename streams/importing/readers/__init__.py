"""One reader for each format: from its records to the steps of trajectories.

May import ``streams.importing.steps`` only. ``streams.importing.formats`` chooses among them.
"""
