"""Who may search, and how often.

May import ``serving.handles`` and ``serving.problems``.
"""
