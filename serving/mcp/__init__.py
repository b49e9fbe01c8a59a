"""The MCP server, on the official SDK.

May import the modules of :mod:`serving`; the HTTP API does not import it.
"""
