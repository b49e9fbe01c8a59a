"""The whole loop on this machine, measured.

May import every package.
"""
