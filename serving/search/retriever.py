"""Search through the alias, with the model that built what it points at."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

from retrail_runtime import milvus
from schemas.collection import TEXT_FIELD, TITLE_FIELD, Build
from schemas.documents import Document
from schemas.errors import MilvusUnavailableError, ModelError, NoIndexError, RetrailError
from schemas.settings import Settings
from serving import metrics
from serving.search import target
from serving.search.queries import CALL_TIMEOUT, CONSISTENCY, ask
from serving.search.target import QueryEncoder, Target

log = structlog.get_logger(__name__)

T = TypeVar("T")

CACHED_SECONDS = 1.0
"""How long an answer of the alias is used. The grace time of a build is longer."""
PATIENCE = 30.0
"""Seconds that a search is repeated while Milvus restarts or an index changes under it."""
MAX_HITS = 16_384
"""Most hits that Milvus gives for one query."""
MAX_QUERIES = 1_000
"""Queries of one message to Milvus; more are sent in several."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One result; rank 1 is the first.

    ``score`` is a cosine similarity, or of a hybrid index the sum of 1 / (60 + rank) over its
    halves: compare scores within one answer only.
    """

    doc_id: str
    rank: int
    score: float
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits by rank, and the version of model and index that gave them.

    Agents publish the version with their search, as ``retriever_version``.
    """

    hits: list[Hit]
    retriever_version: int


class Retriever:
    """Searches the live index; safe to share between threads.

    The alias is asked once a second. The search that finds it changed loads the new model, while
    others go on with the index before, which is kept for the grace time. A search that meets a
    collection just dropped, or a Milvus that restarts, is repeated for up to :data:`PATIENCE`
    seconds.

    Example::

        with Retriever(schemas.settings.load()) as retriever:
            result = retriever.search("how to parse a date", k=5)
            for hit in result.hits:
                print(hit.rank, hit.doc_id, hit.text)
    """

    def __init__(
        self, settings: Settings, *, load: Callable[[Settings, Build], QueryEncoder] | None = None
    ) -> None:
        """Connect; models are loaded when they are needed.

        Args:
            load: loads the model of a build; by default from the registry, its digest verified.

        Raises:
            MilvusUnavailableError: Milvus does not answer now.
        """
        self._settings = settings
        self._client = milvus.connect(settings)
        self._load = load or target.load_encoder
        self._target: Target | None = None
        self._asked_at = 0.0
        self._answered = False
        self._switching = threading.Lock()

    def search(self, query: str, k: int = 10) -> SearchResult:
        """The ``k`` nearest documents of a query.

        Raises:
            NoIndexError: nothing has been built for this retriever.
            MilvusUnavailableError: Milvus does not answer.
            ModelError: the model of the index cannot be loaded.
        """
        return self.search_many([query], k)[0]

    def search_many(self, queries: Sequence[str], k: int = 10) -> list[SearchResult]:
        """As :meth:`search`, for several queries at once, all by one version."""
        if not 1 <= k <= MAX_HITS:
            raise ValueError(f"k is {k}; it must be between 1 and {MAX_HITS}")
        if not queries:
            return []
        try:
            results = self._patiently(lambda found: self._search(found, queries, k))
        except RetrailError:
            metrics.SEARCHES.labels("error").inc(len(queries))
            raise
        metrics.SEARCHES.labels("ok").inc(len(queries))
        return results

    def open(self, doc_id: str) -> Document | None:
        """The document, as the index holds it (text up to 65,535 bytes); ``None`` without one.

        Raises:
            As :meth:`search`.
        """

        def get(found: Target) -> Document | None:
            rows = self._client.query(
                found.build.collection,
                filter=milvus.ids_filter([doc_id]),
                output_fields=[TITLE_FIELD, TEXT_FIELD],
                consistency_level=CONSISTENCY,
                timeout=CALL_TIMEOUT,
            )
            if not rows:
                return None
            return Document(doc_id=doc_id, title=rows[0][TITLE_FIELD], text=rows[0][TEXT_FIELD])

        return self._patiently(get)

    def version(self) -> int:
        """The version that searches are answered by now.

        Raises:
            As :meth:`search`.
        """
        return self._patiently(lambda found: found.build.version)

    def close(self) -> None:
        """Leave Milvus. Searches under way may fail."""
        self._client.close()

    def __enter__(self) -> Self:
        """The retriever itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _search(self, found: Target, queries: Sequence[str], k: int) -> list[SearchResult]:
        with metrics.SEARCH_SECONDS.labels("encode").time():
            vectors = found.encoder.encode_queries(list(queries))
        answers: list[Any] = []
        with metrics.SEARCH_SECONDS.labels("milvus").time():
            for start in range(0, len(queries), MAX_QUERIES):
                part = slice(start, start + MAX_QUERIES)
                answers += ask(self._client, found.build, queries[part], vectors[part], k)
        return [SearchResult(_hits(answer), found.build.version) for answer in answers]

    # -- Which target ---------------------------------------------------------------------------

    def _patiently(self, call: Callable[[Target], T]) -> T:
        """Call with the target; again, with the target as it is then, while that may help."""
        deadline = time.monotonic() + PATIENCE
        delay = 0.02
        while True:
            found: Target | None = None
            try:
                found = self._current()
                return call(found)
            except milvus.FAILURES as error:
                if time.monotonic() > deadline:
                    raise MilvusUnavailableError(
                        f"Milvus at {self._settings.milvus_uri} has failed for {PATIENCE:.0f} s "
                        f"({milvus.error_message(error)}). Is it still running?"
                    ) from error
                self._recover(found, error)
            except NoIndexError:
                # An index that was there and is gone is being built anew, which may take long.
                if not self._answered or time.monotonic() > deadline:
                    raise
                metrics.RETRIES.labels("no alias").inc()
            time.sleep(delay)
            delay = min(2 * delay, 0.5)

    def _recover(self, failed: Target | None, error: Exception) -> None:
        """Make a repetition of the call more promising."""
        if failed is None or not (milvus.is_missing(error) or milvus.is_not_loaded(error)):
            metrics.RETRIES.labels("failed").inc()
            log.info("search failed, trying again", error=milvus.error_message(error))
        elif milvus.is_missing(error):
            metrics.RETRIES.labels("dropped").inc()
            with self._switching:
                if self._target is failed:
                    self._target = None
        else:
            metrics.RETRIES.labels("not loaded").inc()
            try:
                self._client.load_collection(failed.build.collection, timeout=CALL_TIMEOUT)
            except milvus.FAILURES as reason:
                log.info("collection not loaded yet", error=milvus.error_message(reason))

    def _current(self) -> Target:
        """The target to search: as the alias said within the last second.

        One thread asks and, if need be, loads; the others go on with the target before.
        """
        found = self._target
        if found is not None:
            fresh = time.monotonic() - self._asked_at <= CACHED_SECONDS
            if fresh or not self._switching.acquire(blocking=False):
                return found
        else:
            self._switching.acquire()
        try:
            return self._ask()
        finally:
            self._switching.release()

    def _ask(self) -> Target:
        """Ask the alias, and load the model if it points elsewhere; under the lock."""
        before = self._target
        if before is not None and time.monotonic() - self._asked_at <= CACHED_SECONDS:
            return before
        build = target.resolve(self._client, self._settings)
        if before is None or before.build.build_id != build.build_id:
            try:
                self._target = Target(build, self._load(self._settings, build))
            except ModelError as error:
                if before is None:
                    raise
                log.error("cannot load the new model, searching on", error=str(error))
            else:
                self._answered = True
                metrics.SWITCHES.inc()
                metrics.SEARCHED_VERSION.set(build.version)
                log.info("searching", collection=build.collection, version=build.version)
        self._asked_at = time.monotonic()
        assert self._target is not None
        return self._target


def _hits(answer: Any) -> list[Hit]:
    return [
        Hit(
            doc_id=str(found.id),
            rank=rank,
            score=float(found.distance),
            title=found.entity.get(TITLE_FIELD),
            text=found.entity.get(TEXT_FIELD),
        )
        for rank, found in enumerate(answer, start=1)
    ]
