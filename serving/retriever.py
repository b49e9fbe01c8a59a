"""Search the collection behind the alias, with the model that built it."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import structlog

from retrail_runtime import milvus
from retrail_runtime.milvus import TEXT_FIELD, TITLE_FIELD, Build
from retrail_runtime.retry import retrying
from schemas.documents import Document
from schemas.errors import MilvusUnavailableError, ModelError, NoIndexError, RetrailError
from schemas.settings import Settings
from serving import metrics, target
from serving.target import CALL_TIMEOUT, CONSISTENCY, Target

if TYPE_CHECKING:
    from trainer.model.encoder import Encoder

log = structlog.get_logger(__name__)

T = TypeVar("T")

CACHED_SECONDS = 1.0
"""How long a resolved alias is used. The grace time of a build is longer."""
RETRY_SECONDS = 30.0
"""How long a search is repeated while Milvus restarts or an index is replaced."""
MAX_HITS = 16_384
"""Milvus' limit for one query."""
MAX_QUERIES = 1_000
"""Queries of one call to Milvus; more are sent in several."""


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

    The alias is resolved once a second. The search that finds it changed loads the new model, while
    others use the previous collection, which is kept for the grace time. A search that meets a
    collection just dropped, or a Milvus that restarts, is repeated for up to
    :data:`RETRY_SECONDS`.

    Example::

        with Retriever(schemas.settings.load()) as retriever:
            result = retriever.search("how to parse a date", k=5)
            for hit in result.hits:
                print(hit.rank, hit.doc_id, hit.text)
    """

    def __init__(
        self,
        settings: Settings,
        *,
        load: "Callable[[Settings, Build], Encoder]" = target.load_encoder,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """Connect; models are loaded when they are needed.

        Args:
            load: loads the model of a build; by default from the registry, its digest verified.
            retry_seconds: how long a search is repeated.

        Raises:
            MilvusUnavailableError: Milvus does not answer now.
        """
        self._settings = settings
        self._client = milvus.connect(settings)
        self._load = load
        self._retry_seconds = retry_seconds
        self._target: Target | None = None
        self._resolved_at = 0.0
        self._had_target = False
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
            results = self._with_target(lambda found: self._search(found, queries, k))
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

        return self._with_target(get)

    def version(self) -> int:
        """The version that searches are answered by now.

        Raises:
            As :meth:`search`.
        """
        return self._with_target(lambda found: found.build.version)

    def close(self) -> None:
        """Close the connection. Searches in progress may fail."""
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
                answers += target.search(self._client, found.build, queries[part], vectors[part], k)
        return [SearchResult(_hits(answer), found.build.version) for answer in answers]

    # -- The target -----------------------------------------------------------------------------

    def _with_target(self, call: Callable[[Target], T]) -> T:
        """Call with the target; repeat, with the target of then, while that may help."""

        def attempt() -> T:
            found = self._current()
            try:
                return call(found)
            except milvus.FAILURES as error:
                self._recover(found, error)
                raise

        def may_help(error: BaseException) -> bool:
            # An index that was there and is gone is being built again.
            return isinstance(error, milvus.FAILURES) or (
                isinstance(error, NoIndexError) and self._had_target
            )

        def count(state: Any) -> None:
            error = state.outcome.exception()
            metrics.RETRIES.labels(_reason(error)).inc()
            log.info("search failed, retrying", error=milvus.error_message(error))

        attempts = retrying(
            may_help, seconds=self._retry_seconds, first=0.02, longest=0.5, before_sleep=count
        )
        try:
            return attempts(attempt)
        except milvus.FAILURES as error:
            raise MilvusUnavailableError(
                f"Searches in Milvus at {self._settings.milvus_uri} failed for "
                f"{self._retry_seconds:.0f} s: {milvus.error_message(error)}. Check that the "
                "server is up."
            ) from error

    def _recover(self, failed: Target, error: Exception) -> None:
        """Resolve the alias again, or load the collection, before the call is repeated."""
        if milvus.is_missing(error):
            with self._switching:
                if self._target is failed:
                    self._target = None
        elif milvus.is_not_loaded(error):
            try:
                self._client.load_collection(failed.build.collection, timeout=CALL_TIMEOUT)
            except milvus.FAILURES as reason:
                log.info("collection not loaded yet", error=milvus.error_message(reason))

    def _current(self) -> Target:
        """The target to search: what the alias pointed at within the last second.

        One thread resolves the alias and, if need be, loads; the others use the previous target.
        """
        found = self._target
        if found is not None:
            if self._is_fresh() or not self._switching.acquire(blocking=False):
                return found
        else:
            self._switching.acquire()
        try:
            return self._resolve()
        finally:
            self._switching.release()

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._resolved_at <= CACHED_SECONDS

    def _resolve(self) -> Target:
        """Resolve the alias, and load the model if it is another; under the lock."""
        before = self._target
        if before is not None and self._is_fresh():
            return before
        build = target.resolve(self._client, self._settings)
        found = before
        if before is None or before.build.build_id != build.build_id:
            try:
                if before is not None and before.build.digest == build.digest:
                    encoder = before.encoder
                else:
                    encoder = self._load(self._settings, build)
            except ModelError as error:
                if before is None:
                    raise
                log.error("cannot load the new model, using the previous one", error=str(error))
            else:
                found = Target(build, encoder)
                self._had_target = True
                metrics.SWITCHES.inc()
                metrics.SEARCHED_VERSION.set(build.version)
                log.info("searching", collection=build.collection, version=build.version)
        assert found is not None
        self._target, self._resolved_at = found, time.monotonic()
        return found


def _reason(error: BaseException) -> str:
    """The label of a repeated call."""
    if isinstance(error, NoIndexError):
        return "no alias"
    if milvus.is_missing(error):
        return "dropped"
    return "not loaded" if milvus.is_not_loaded(error) else "failed"


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
