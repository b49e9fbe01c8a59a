"""A retriever over a handful of texts, and a publisher that only remembers."""

import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

from retrail import Trajectory
from schemas.documents import Document
from schemas.errors import NoTenantsError
from schemas.settings import Settings
from serving.async_retriever import AsyncRetriever
from serving.handles import Agent
from serving.http_api import create_app
from serving.retriever import Hit, SearchResult
from serving.service import SearchService

TEXTS = {
    "gzip": "Open a gzip file with gzip.open, in binary or text mode.",
    "zip/file": "Read and write archives of the ZIP format.",
    "json#0": "Encode and decode JavaScript object notation.",
}


SECRET = b"0123456789abcdef"


class FakeRetriever:
    """Ranks by common words; remembers which queries came together, and can be made to wait."""

    def __init__(self, texts: Mapping[str, str] = TEXTS, *, version: int = 1) -> None:
        self.texts, self.release = dict(texts), version
        self.urls: dict[str, str] = {}
        self.batches: list[tuple[list[str], int]] = []
        self.note = ""
        self.failure: Exception | None = None
        self.has_tenants = True
        self.poison: str | None = None
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.closed = False

    def search_many(
        self, queries: Sequence[str], k: int = 10, tenants: Sequence[str | None] = ()
    ) -> list[SearchResult]:
        self.batches.append((list(queries), k))
        assert self.goes_on.wait(30)
        self._fail()
        if self.poison in queries:
            raise ValueError("poison")
        self._require_tenants(*tenants)
        return [SearchResult(self._hits(q)[:k], self.release, self.note) for q in queries]

    def search(self, query: str, k: int = 10, tenant: str | None = None) -> SearchResult:
        return self.search_many([query], k, [tenant])[0]

    def open(self, doc_id: str, tenant: str | None = None) -> Document | None:
        self._fail()
        self._require_tenants(tenant)
        text = self.texts.get(doc_id)
        if text is None:
            return None
        return Document(doc_id=doc_id, title=doc_id, text=text, url=self.urls.get(doc_id))

    def version(self) -> int:
        self._fail()
        return self.release

    def close(self) -> None:
        self.closed = True

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _require_tenants(self, *tenants: str | None) -> None:
        if not self.has_tenants and any(tenants):
            raise NoTenantsError("no tenants")

    def _hits(self, query: str) -> list[Hit]:
        words = set(query.lower().split())
        scores = {d: len(words & set(t.lower().split())) / 10 for d, t in self.texts.items()}
        best = sorted(scores, key=lambda doc_id: (-scores[doc_id], doc_id))
        return [
            Hit(d, rank, scores[d], d, self.texts[d], self.urls.get(d))
            for rank, d in enumerate(best, 1)
        ]


class Remembering:
    """In place of :class:`retrail.Publisher`; events by trajectory, in their order."""

    def __init__(self) -> None:
        self.events: dict[str, list[tuple[Any, ...]]] = {}
        self.agents: dict[str, Agent] = {}
        self.acknowledges: bool | None = True

    def trajectory(
        self, trajectory_id: str, *, agent: str, model: str, tenant: str, numbered: bool
    ) -> Trajectory:
        assert not numbered
        self.agents[trajectory_id] = Agent(agent, model, tenant)
        steps: Any = _Steps(self.events.setdefault(trajectory_id, []), self.acknowledges)
        return steps


class _Steps:
    def __init__(self, events: list[tuple[Any, ...]], acknowledges: bool | None) -> None:
        self._events, self._before = events, len(events)
        self._delivery: Future[bool] = Future()
        if acknowledges is not None:
            self._delivery.set_result(acknowledges)

    @property
    def acknowledged(self) -> Future[bool] | None:
        return self._delivery if len(self._events) > self._before else None

    def search(self, query: str, hits: Any, *, retriever_version: int) -> None:
        self._events.append(("search", query, [hit.doc_id for hit in hits], retriever_version))

    def browse(self, doc_id: str) -> None:
        self._events.append(("browse", doc_id))

    def reason(self, text: str, **more: object) -> None:
        given = [value for value in more.values() if value is not None]
        self._events.append(("reasoning", text, *given))

    def other(self, name: str) -> None:
        self._events.append(("other", name))

    def answer(self, text: str) -> None:
        self._events.append(("answer", text))

    def end(self, outcome: str) -> None:
        self._events.append(("end", outcome))


class World:
    """An app over a fake retriever, and what it published."""

    def __init__(self, **changes: object) -> None:
        self.settings = Settings.model_validate(changes)
        self.retriever, self.log = FakeRetriever(), Remembering()
        self.app = create_app(self._running)

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[SearchService]:
        retriever = AsyncRetriever(self.retriever, seconds=self.settings.serve_deadline_seconds)
        service = SearchService(self.settings, retriever, self.log, SECRET)
        async with service.running():
            yield service
