"""`serve` and `mcp` for scripted agents: their corpus in place of an index, and a real Kafka."""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.settings import Settings
from serving import running
from serving.async_retriever import AsyncRetriever
from serving.guards import guarded
from serving.http_api import create_app
from serving.mcp.server import create_http_app
from serving.otlp import Traces
from serving.service import SearchService
from tests.agents.corpus import retriever
from tests.agents.pairs import Pair, pairs
from tests.serving.fakes import FakeRetriever
from tests.serving.live import listening
from tests.serving.processes import environment, events
from tests.streams.fleet import installation

SECRET = "a secret that all servers share"
COMMAND = (sys.executable, "-m", "tests.agents.command")


@dataclass
class Servers:
    """Servers of one installation, over the corpus of scripted agents and a real Kafka."""

    settings: Settings
    mcp_url: str
    http_url: str

    @property
    def stdio(self) -> list[str]:
        """Command of an MCP server."""
        return [*COMMAND, "mcp"]

    @property
    def environment(self) -> dict[str, str]:
        """Its environment."""
        return environment(self.settings, RETRAIL_SERVE_SECRET=SECRET)

    def learned(self, seen: set[str]) -> list[Pair]:
        """The pairs of the events that are not among those ``seen``."""
        new = [event for event in events(self.settings) if event.event_id not in seen]
        return pairs(new, self.settings)

    def event_ids(self) -> set[str]:
        """Those on the log."""
        return {event.event_id for event in events(self.settings)}


@contextmanager
def running_servers(
    kafka: str, folder: Path, found: FakeRetriever | None = None
) -> Iterator[Servers]:
    """Both over HTTP, in threads; ``found`` searches in place of the corpus."""
    settings = installation(kafka, folder)

    @asynccontextmanager
    async def service() -> AsyncIterator[Any]:
        searches = AsyncRetriever(found or retriever(), seconds=10)
        with running.publisher(settings) as publisher:
            async with SearchService(
                settings, searches, publisher, SECRET.encode()
            ).running() as running_service:
                yield running_service

    mcp_app = create_http_app(service, host="127.0.0.1")
    http_app = create_app(service, Traces(settings))
    with (
        listening(guarded(mcp_app, settings, host="127.0.0.1")) as mcp_url,
        listening(guarded(http_app, settings, host="127.0.0.1")) as http_url,
    ):
        yield Servers(settings, f"{mcp_url}/mcp", http_url)
