"""`retrail mcp` over stdio without a model: the corpus of scripted agents in place of an index."""

import logging

from retrail_runtime.process import configure
from schemas.settings import load
from serving import mcp_server, running
from tests.agents.corpus import retriever

if __name__ == "__main__":
    settings = load()
    configure(settings.log_level)
    logging.getLogger("mcp").setLevel(logging.WARNING)
    publisher, key = running.publisher(settings), running.secret(settings)
    mcp_server.serve_stdio(settings, retriever(), publisher, key)  # type: ignore[arg-type]
