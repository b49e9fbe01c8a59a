"""Publishes the searches and browses of callers as trajectories.

May import ``serving.search`` and ``retrail``.
"""
