"""Search the collection behind the alias, with the model that built it."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

import structlog

from retrail_runtime import milvus, search
from retrail_runtime.metrics import DEPENDENCY_UP
from retrail_runtime.milvus import TEXT_FIELD, TITLE_FIELD, URL_FIELD, Build
from retrail_runtime.milvus.refusals import refusal_of
from retrail_runtime.retry import Deadline, retrying
from retrail_runtime.search import Tenants
from schemas.documents import Document
from schemas.errors import MilvusUnavailableError, NoIndexError, RetrailError
from schemas.settings import Settings
from serving import metrics, target
from serving.target import Loading, Target

if TYPE_CHECKING:
    from trainer.model.encoder import Encoder

log = structlog.get_logger(__name__)

T = TypeVar("T")

CACHED_SECONDS = 1.0
"""How long a resolved alias is used. The grace time of a build is longer."""
PATIENCE = 120.0
"""Default for the seconds that a call waits; servers wait for ``serve_deadline_seconds``."""
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
    url: str | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits by rank, and the version of model and index that gave them.

    Agents publish the version with their search. ``note`` says whether documents are missing.
    """

    hits: list[Hit]
    retriever_version: int
    note: str = ""


class Retriever:
    """Searches the live index; safe to share between threads.

    The alias is resolved once a second, by one thread at a time. When it points at another build,
    that build's model is loaded in a thread of its own; until it is loaded, calls use the previous
    collection, which is kept for the grace time. A call that meets a dropped collection, or a
    Milvus that restarts, is repeated until its time is up.

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
        seconds: float = PATIENCE,
    ) -> None:
        """Connect; models are loaded when they are needed.

        Args:
            load: loads the model of a build; by default from the registry, its digest verified.
            seconds: how long a call waits for the alias, the first model and Milvus, all together.
                The time of encoding is not counted.

        Raises:
            MilvusUnavailableError: Milvus does not answer now.
        """
        self._settings = settings
        self._client = milvus.connect(settings)
        self._load = load
        self._seconds = seconds
        self._target: Target | None = None
        self._resolved_at = 0.0
        self._resolving = threading.Lock()
        self._loading: Loading | None = None
        self._had_target = False

    def search(self, query: str, k: int = 10, tenant: str | None = None) -> SearchResult:
        """The ``k`` nearest documents of a query.

        Args:
            tenant: whose documents are found, beside everyone's; ``None``: all documents.

        Raises:
            NoTenantsError: a tenant was given, and the rows of the index have no tenants.
            NoIndexError: nothing has been built for this retriever.
            MilvusUnavailableError: Milvus does not answer.
            ModelError: the model of the index cannot be loaded.
        """
        return self.search_many([query], k, [tenant])[0]

    def search_many(
        self, queries: Sequence[str], k: int = 10, tenants: Tenants = ()
    ) -> list[SearchResult]:
        """As :meth:`search`, for several queries at once, all by one version."""
        if not 1 <= k <= MAX_HITS:
            raise ValueError(f"k is {k}; it must be between 1 and {MAX_HITS}")
        if not queries:
            return []
        try:
            results = self._with_target(
                lambda found, deadline: self._search(found, queries, k, tenants, deadline)
            )
        except RetrailError:
            metrics.SEARCHES.labels("error").inc(len(queries))
            raise
        metrics.SEARCHES.labels("ok").inc(len(queries))
        return results

    def open(self, doc_id: str, tenant: str | None = None) -> Document | None:
        """The document, as the index holds it (text up to 65,535 bytes).

        ``None`` if there is none that the tenant may see.

        Raises:
            As :meth:`search`.
        """

        ids = milvus.ids_filter([doc_id])

        def get(found: Target, deadline: Deadline) -> Document | None:
            rows = self._client.query(
                found.build.collection,
                filter=" and ".join(filter(None, (ids, milvus.tenant_filter(found.build, tenant)))),
                output_fields=[TITLE_FIELD, TEXT_FIELD, URL_FIELD],
                consistency_level=search.CONSISTENCY,
                timeout=search.call_timeout(deadline),
            )
            if not rows:
                return None
            [row] = rows
            return Document(
                doc_id=doc_id,
                title=row[TITLE_FIELD],
                text=row[TEXT_FIELD],
                url=row[URL_FIELD] or None,
            )

        return self._with_target(get)

    def version(self) -> int:
        """The version that answers searches; Milvus confirmed the alias within the last second.

        Raises:
            As :meth:`search`.
        """
        return self._with_target(lambda found, _: found.build.version, confirmed=True)

    def close(self) -> None:
        """Close the connection; calls in progress fail."""
        if self._loading is not None:
            self._loading.give_up()
        self._client.close()

    def __enter__(self) -> Self:
        """The retriever itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _search(
        self,
        found: Target,
        queries: Sequence[str],
        k: int,
        tenants: Tenants,
        deadline: Deadline,
    ) -> list[SearchResult]:
        with metrics.SEARCH_SECONDS.labels("encode").time(), deadline.paused():
            vectors = found.encoder.encode_queries(list(queries))
        answers: list[Any] = []
        with metrics.SEARCH_SECONDS.labels("milvus").time():
            for start in range(0, len(queries), MAX_QUERIES):
                part = slice(start, start + MAX_QUERIES)
                answers += search.search(
                    self._client,
                    found.build,
                    queries[part],
                    vectors[part],
                    k,
                    deadline,
                    tenants=tenants[part],
                )
        return [_result(found.build, answer) for answer in answers]

    # -- The target -----------------------------------------------------------------------------

    def _with_target(self, call: Callable[[Target, Deadline], T], *, confirmed: bool = False) -> T:
        """Call with the target; repeat, with the target of then, while that may help."""
        deadline = Deadline(self._seconds)

        def attempt() -> T:
            found = self._current(deadline, confirmed=confirmed)
            try:
                return call(found, deadline)
            except milvus.FAILURES as error:
                self._recover(found, error, deadline)
                raise

        def may_help(error: BaseException) -> bool:
            # An index that was there and is gone is being built again.
            if isinstance(error, milvus.FAILURES):
                return not refusal_of(error)
            return isinstance(error, NoIndexError) and self._had_target

        def count(state: Any) -> None:
            error = state.outcome.exception()
            reason = _reason(error)
            metrics.RETRIES.labels(reason).inc()
            if reason == "failed":
                DEPENDENCY_UP.labels("milvus").set(0)
            log.info("search failed, retrying", error=milvus.error_message(error))

        attempts = retrying(
            may_help, seconds=self._seconds, first=0.02, longest=0.5, before_sleep=count
        )
        try:
            answer = attempts(attempt)
            DEPENDENCY_UP.labels("milvus").set(1)
            return answer
        except milvus.FAILURES as error:
            if refusal := refusal_of(error):
                raise MilvusUnavailableError(
                    f"Milvus at {self._settings.milvus_uri} refuses searches: {refusal}"
                ) from error
            raise MilvusUnavailableError(
                f"Searches in Milvus at {self._settings.milvus_uri} failed for "
                f"{self._seconds:.0f} s: {milvus.error_message(error)}. Check that the "
                "server is up."
            ) from error

    def _recover(self, failed: Target, error: Exception, deadline: Deadline) -> None:
        """Resolve the alias again, or load the collection, before the call is repeated."""
        if milvus.is_missing(error):
            with self._resolving:
                if self._target is failed:
                    self._target = None
        elif milvus.is_not_loaded(error):
            try:
                self._client.load_collection(
                    failed.build.collection, timeout=search.call_timeout(deadline)
                )
            except milvus.FAILURES as reason:
                log.info("collection not loaded yet", error=milvus.error_message(reason))

    def _current(self, deadline: Deadline, *, confirmed: bool) -> Target:
        """The target to search: what the alias pointed at within the last second.

        One thread resolves the alias; the others use the previous target meanwhile, unless there
        is none, or it must be ``confirmed``.
        """
        found = self._target
        if found is not None and self._is_fresh():
            return found
        patient = found is None or confirmed
        if not self._resolving.acquire(timeout=deadline.remaining if patient else 0):
            if found is not None and not confirmed:
                return found
            raise MilvusUnavailableError(
                f"Milvus at {self._settings.milvus_uri} does not answer: the alias could not be "
                f"resolved within {self._seconds:.0f} s. Check that the server is up."
            )
        try:
            current = self._resolve(deadline)
        finally:
            self._resolving.release()
        return current.result(deadline) if isinstance(current, Loading) else current

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._resolved_at <= CACHED_SECONDS

    def _resolve(self, deadline: Deadline) -> "Target | Loading":
        """Resolve the alias, under the lock; returns what to search, or what to wait for."""
        if self._target is not None and self._is_fresh():
            return self._target
        build = search.resolve(self._client, self._settings, deadline)
        self._resolved_at = time.monotonic()
        found = self._target
        if found is not None and found.build.build_id == build.build_id:
            self._loading = None
            if found.build.indexed != build.indexed:
                found = self._target = replace(found, build=build)
            return found
        if found is not None and found.build.digest == build.digest:
            return self._switch(Target(build, found.encoder))
        loading = self._loading
        if loading is None or loading.build.build_id != build.build_id or loading.has_failed():
            loading = self._loading = Loading(build)
            arguments = (lambda: self._load(self._settings, build), self._loaded)
            # A daemon: a model that is being loaded must not delay the end of the process.
            threading.Thread(
                target=loading.run, args=arguments, name="load-model", daemon=True
            ).start()
        return found or loading

    def _loaded(self, loading: "Loading", found: Target) -> None:
        """Take a model that was loaded, unless the alias has moved on since."""
        with self._resolving:
            if self._loading is loading:
                self._loading = None
                self._switch(found)

    def _switch(self, found: Target) -> Target:
        self._target, self._had_target = found, True
        metrics.SWITCHES.inc()
        metrics.SEARCHED_VERSION.set(found.build.version)
        log.info("searching", collection=found.build.collection, version=found.build.version)
        return found


def _reason(error: BaseException) -> metrics.RetryReason:
    """The label of a repeated call."""
    if isinstance(error, NoIndexError):
        return "no alias"
    if milvus.is_missing(error):
        return "dropped"
    return "not loaded" if milvus.is_not_loaded(error) else "failed"


def _result(build: Build, answer: Any) -> SearchResult:
    hits = [
        Hit(
            doc_id=str(found.id),
            rank=rank,
            score=float(found.distance),
            title=found.entity.get(TITLE_FIELD),
            text=found.entity.get(TEXT_FIELD),
            url=found.entity.get(URL_FIELD) or None,
        )
        for rank, found in enumerate(answer, start=1)
    ]
    note = build.progress or ("" if hits else "The index holds no documents.")
    return SearchResult(hits, build.version, note)
