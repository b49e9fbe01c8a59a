"""Spans of agents that are traced with OpenTelemetry, and the trajectories in them.

May import ``streams.importing``, ``streams.loop``, ``schemas`` and ``retrail_runtime``. The modules
from ``dialects`` to ``fold`` are functions of plain values; ``worker`` runs them on Kafka.
"""
