"""Documents with queries and relevance judgements.

May import ``schemas``.
"""
