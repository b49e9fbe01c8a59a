"""The HTTP API and the MCP server.

May import every package of ``serving``.
"""
