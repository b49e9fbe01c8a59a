"""Who may search, and how often; servers that commands on this machine find.

May import ``serving.handles`` and ``serving.problems``.
"""
