"""``retrail documents``: reads files into records of ``documents``.

May import every package.
"""
