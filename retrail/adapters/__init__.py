"""Search through ``retrail serve`` as agents' frameworks take it, a module for each.

It may import ``retrail`` and the framework of its extra.
"""
