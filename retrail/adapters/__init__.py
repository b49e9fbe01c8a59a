"""Search through ``retrail serve`` for agents' frameworks, one module each.

It may import ``retrail`` and the framework of its extra.
"""
