"""Scripted agents and what they write.

May import ``simulation.corpora``, ``retrail`` and ``serving``.
"""
