"""The local stack of ``retrail up``.

May import ``deploy.servers`` and ``deploy.processes``.
"""
