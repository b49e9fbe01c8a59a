"""Milvus for the index worker: collections of builds, rows, and the alias.

What Milvus Lite 3.2.2 does under pymilvus 3.0.2 (observed; :mod:`retrail_runtime.milvus` has more):

- ``describe_collection`` returns the properties given at creation, also after a kill -9 of the
  server; acknowledged rows and aliases survive it too.
- VARCHAR limits are enforced by real Milvus only (in bytes), so texts are cut here.
- After a restart every collection is "released" until ``load_collection``; upserts and deletes
  work. ``load_collection`` and ``flush`` may be repeated.
- ``create_index`` on an indexed field raises code 35, and ``drop_index`` on a loaded collection
  code 6. Building one takes at least 0.5 s: pymilvus polls twice a second.
- The index of a loaded collection is called finished at once and built in a thread after a flush;
  until then its rows are searched exactly. Otherwise it is built during the load.
- ``alter_alias`` on an unknown alias raises code 100, ``create_alias`` on a known one code 1;
  dropping a collection drops its aliases with it.
- Of two rows with one key in a batch the last wins on Lite; on Milvus 2.x both may stay.
- ``describe_collection`` by alias returns the collection's own name.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import structlog
from pymilvus import MilvusClient

from consumers.indexing import collection, metrics
from consumers.indexing.collection import BATCH_ROWS, CollectionLostError, Row
from retrail_runtime import milvus
from retrail_runtime.metrics import DEPENDENCY_UP
from retrail_runtime.milvus import (
    HASH_FIELD,
    ID_FIELD,
    SERVED_PROPERTY,
    VECTOR_FIELD,
    Build,
    version_of,
)
from retrail_runtime.milvus.refusals import refusal_of
from retrail_runtime.retry import Deadline, retrying
from retrail_runtime.search import Tenants
from retrail_runtime.search import search as ask
from schemas.errors import ConfigurationError, RestartRequiredError
from schemas.settings import Settings
from trainer.model.encoder import Vectors

log = structlog.get_logger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 30.0
"""How long a failed call is retried."""
LONG_CALL = 3600.0
"""Seconds for building an index or loading a collection."""
PAGE = 16_384
"""Rows in one answer; Milvus returns no more."""
SWAP_ATTEMPTS = 50
INDEX_SECONDS = 0.5
"""Between two questions whether all rows are indexed."""


class Milvus:
    """Milvus for one process; safe to share between its threads.

    Every method retries failed calls for up to ``retry_seconds``.

    Raises:
        RestartRequiredError: the call failed for all that time.
        CollectionLostError: the collection does not exist any more (all methods but :meth:`drop`).
        ConfigurationError: the user lacks a privilege.
    """

    def __init__(
        self,
        settings: Settings,
        stop: threading.Event | None = None,
        *,
        client: MilvusClient | None = None,
        vector_index: str = "AUTOINDEX",
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """Connect.

        Args:
            stop: ends retries early when set.
            vector_index: index type of the vectors in new collections; tests use the exact FLAT.

        Raises:
            MilvusUnavailableError: Milvus does not answer now.
        """
        self._settings = settings
        self._stop = stop or threading.Event()
        self._client = client or milvus.connect(settings)
        self._vector_index = vector_index
        self._retry_seconds = retry_seconds

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def require_search(self) -> None:
        """Check that this Milvus supports the search mode of the settings.

        Raises:
            ConfigurationError: it is too old.
        """
        milvus.require_search(self._settings, self._call(self._client.get_server_version))

    # -- Builds -----------------------------------------------------------------------------

    def builds(self) -> tuple[Build, ...]:
        """Every build of the retriever, by version."""
        found = []
        for name in self._call(self._client.list_collections):
            if version_of(self._settings.retriever, name) is None:
                continue
            with suppress(CollectionLostError):
                found.append(self._describe(name))
        return tuple(sorted(filter(None, found), key=lambda build: build.version))

    def exists(self, build: Build) -> bool:
        """Whether the collection is still that of this very build."""
        with suppress(CollectionLostError):
            found = self._describe(build.collection)
            return found is not None and found.build_id == build.build_id
        return False

    def set_property(self, build: Build, name: str, value: str) -> None:
        """Write a property, such as the id of the build that is requested in place of this one."""
        alter = self._client.alter_collection_properties
        self._call(alter, build.collection, properties={name: value})

    def create(self, build: Build, dimension: int) -> None:
        """Create the collection of a build, unless it exists; indexed and loaded.

        So Milvus indexes the rows while the next ones are encoded, and not after the last.
        """
        if self._call(self._client.has_collection, build.collection):
            return
        self._call(
            self._client.create_collection,
            build.collection,
            schema=collection.schema(build.search, dimension),
            properties=build.properties(),
            # For `page`; every other call sets its level.
            consistency_level="Strong",
        )
        self._ensure_indexes(build)
        self._load(build)

    def drop(self, build: Build) -> None:
        """Drop the collection of this very build, if it exists."""
        if self.exists(build):
            self._call(self._client.drop_collection, build.collection, timeout=LONG_CALL)

    # -- Rows -------------------------------------------------------------------------------

    def upsert(self, build: Build, rows: Iterable[Row]) -> int:
        """Write rows, the last of each id, in batches; returns how many once acknowledged."""
        distinct = {row.doc_id: row for row in rows}
        remaining = iter(distinct.values())
        while batch := list(islice(remaining, BATCH_ROWS)):
            fields = [row.fields(build.search, tenants=build.tenants) for row in batch]
            self._call(self._client.upsert, build.collection, fields)
        return len(distinct)

    def delete(self, build: Build, doc_ids: Iterable[str]) -> int:
        """Delete the rows that exist; returns the number of ids."""
        remaining = iter(distinct := dict.fromkeys(doc_ids))
        while batch := list(islice(remaining, BATCH_ROWS)):
            self._call(self._client.delete, build.collection, filter=milvus.ids_filter(batch))
        return len(distinct)

    def count(self, build: Build) -> int:
        """Number of rows, with all acknowledged writes: a busy Milvus waits for them."""
        return int(self._query(build, "", output_fields=["count(*)"])[0]["count(*)"])

    def page(self, build: Build, after: str) -> dict[str, str]:
        """Content hash by id of the next :data:`PAGE` rows, all acknowledged writes included.

        In the order of ids; fewer are the last ones.
        """
        # Like pymilvus' own iterator, which breaks on quotes; with the collection's consistency.
        expression = f"{ID_FIELD} > {milvus.literal(after)}"
        return self._hashes(build, expression, limit=PAGE, iterator="True")

    def hashes_of(self, build: Build, doc_ids: Iterable[str]) -> dict[str, str]:
        """Content hash by id of the rows with these ids, all acknowledged writes included."""
        return self._hashes(build, milvus.ids_filter(doc_ids))

    def _hashes(self, build: Build, expression: str, **options: Any) -> dict[str, str]:
        rows = self._query(build, expression, output_fields=[ID_FIELD, HASH_FIELD], **options)
        return {row[ID_FIELD]: row[HASH_FIELD] for row in rows}

    # -- Index ------------------------------------------------------------------------------

    def make_searchable(
        self, build: Build, waits: Callable[[int], object] = lambda _: None
    ) -> bool:
        """Flush, build missing indexes, and wait until all rows are indexed; returns if it did.

        ``waits`` gets the number of rows that are not, and may raise to stop.
        """
        self._call(self._client.flush, build.collection, timeout=LONG_CALL)
        self._ensure_indexes(build)
        waited = False
        while left := self._unindexed(build):
            waits(left)
            self._stop.wait(INDEX_SECONDS)
            waited = True
        return waited

    def load(self, build: Build, *, again: bool = False) -> None:
        """Load the collection unless it is loaded; builds missing and unreadable indexes.

        ``again``: to use indexes made since it was loaded, which Milvus does only after up to 10 s.
        """
        if again:
            self._call(self._client.release_collection, build.collection)
        if not self._is_loaded(build):
            self._ensure_indexes(build)
            self._load(build)

    def probe(self, build: Build) -> bool:
        """Whether a search for a stored vector finds something; true for an empty collection.

        All acknowledged writes are included.
        """
        stored = self._query(build, f'{ID_FIELD} != ""', output_fields=[VECTOR_FIELD], limit=1)
        if not stored:
            return True
        vector = np.array([stored[0][VECTOR_FIELD]], dtype=np.float32)
        return bool(self.search(replace(build, search="dense"), [""], vector, 1)[0])

    def search(
        self, build: Build, texts: Sequence[str], vectors: Vectors, k: int, tenants: Tenants = ()
    ) -> list[list[tuple[str, float]]]:
        """Ids and scores of each query's hits, by the search path of agents.

        All acknowledged writes are included. Each query may be limited to a tenant.
        """

        # Its name is in metrics and errors.
        def search(timeout: float) -> list[Any]:
            how: Any = {"fields": [ID_FIELD], "consistency": "Strong", "tenants": tenants}
            return ask(self._client, build, texts, vectors, k, Deadline(timeout), **how)

        return [[(str(one.id), float(one.distance)) for one in some] for some in self._call(search)]

    # -- Alias ------------------------------------------------------------------------------

    def aliased(self) -> str | None:
        """The collection that the retriever's alias points at."""
        with suppress(CollectionLostError):
            found = self._call(self._client.describe_alias, self._settings.retriever)
            return str(found["collection_name"])
        return None

    def swap(self, build: Build) -> None:
        """Point the alias at a build; returns once Milvus confirms it.

        The build is marked as having served first, so that a crash in between keeps it.
        """
        self.set_property(build, SERVED_PROPERTY, "true")
        alias = self._settings.retriever
        for _ in range(SWAP_ATTEMPTS):
            if self.aliased() is None:
                self._attempt(self._client.create_alias, build.collection, alias)
            if self.aliased() != build.collection:
                # Milvus 2.3 keeps the alias of a dropped collection, but does not describe it.
                self._attempt(self._client.alter_alias, build.collection, alias)
            if self.aliased() == build.collection:
                return
            self._stop.wait(0.1)
        raise RestartRequiredError(
            f"The alias {alias} cannot be set to {build.collection}: it points at "
            f"{self.aliased()}. Check that no collection has the alias's name."
        )

    # -- Calls ------------------------------------------------------------------------------

    def _describe(self, name: str) -> Build | None:
        found = self._call(self._client.describe_collection, name)
        return Build.read(name, found.get("properties") or {})

    def _query(self, build: Build, expression: str, **options: Any) -> Any:
        """Query a collection; loads it first if a restart of the server has released it."""
        options = {"consistency_level": "Strong", **options, "filter": expression}
        query = self._client.query
        try:
            return self._retrying(query, build.collection, **options)
        except milvus.FAILURES as error:
            if not milvus.is_not_loaded(error):
                raise self._failure(query, error) from error
        self.load(build)
        return self._call(query, build.collection, **options)

    def _is_loaded(self, build: Build) -> bool:
        name = build.collection
        state = self._call(self._client.get_load_state, name)["state"]
        if state.name == "NotExist":
            raise CollectionLostError(f"{name} does not exist", collection=name)
        return bool(state.name == "Loaded")

    def _load(self, build: Build) -> None:
        load = self._client.load_collection
        try:
            self._retrying(load, build.collection, timeout=LONG_CALL, only_if=milvus.is_down)
        except milvus.FAILURES as error:
            if milvus.is_missing(error) or milvus.is_down(error):
                raise self._failure(load, error) from error
            reason = milvus.error_message(error)
            log.warning("rebuilding index", collection=build.collection, error=reason)
            self._call(self._client.release_collection, build.collection)
            self._drop_indexes(build)
            self._ensure_indexes(build)
            self._call(load, build.collection, timeout=LONG_CALL)
        log.info("collection loaded", collection=build.collection)

    def _ensure_indexes(self, build: Build) -> None:
        """One at a time: after a crash in between the next call creates the rest."""
        for field in collection.INDEXED_FIELDS[build.search]:
            if not self._indexes(build, field):
                params = collection.index_params(field, self._vector_index)
                self._call(self._client.create_index, build.collection, params, timeout=LONG_CALL)

    def _unindexed(self, build: Build) -> int:
        names = self._call(self._client.list_indexes, build.collection)
        describe = self._client.describe_index
        return collection.unindexed(self._call(describe, build.collection, n) for n in names)

    def _drop_indexes(self, build: Build) -> None:
        for field in collection.INDEXED_FIELDS[build.search]:
            for name in self._indexes(build, field):
                self._call(self._client.drop_index, build.collection, name)

    def _indexes(self, build: Build, field: str) -> list[str]:
        return self._call(self._client.list_indexes, build.collection, field)

    def _call(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Call Milvus; retries refused calls too, for instance above a quota."""
        try:
            return self._retrying(function, *arguments, **options)
        except milvus.FAILURES as error:
            raise self._failure(function, error) from error

    def _retrying(
        self,
        function: Callable[..., T],
        *arguments: Any,
        only_if: Callable[[Exception], bool] = milvus.may_pass,
        **options: Any,
    ) -> T:
        """Call Milvus, and repeat the call while ``only_if`` accepts its error.

        Raises:
            MilvusException, grpc.RpcError: the last error.
        """

        def again(error: BaseException) -> bool:
            return isinstance(error, milvus.FAILURES) and only_if(error)

        def warn(state: Any) -> None:
            DEPENDENCY_UP.labels("milvus").set(0)
            error = milvus.error_message(state.outcome.exception())
            log.warning("milvus call failed, retrying", call=function.__name__, error=error)

        options.setdefault("timeout", milvus.CALL_TIMEOUT)
        attempts = retrying(again, seconds=self._retry_seconds, stop=self._stop, before_sleep=warn)
        with metrics.MILVUS_SECONDS.labels(function.__name__).time():
            answer = attempts(function, *arguments, **options)
        DEPENDENCY_UP.labels("milvus").set(1)
        return answer

    def _attempt(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call Milvus once and log a failure: another worker may have been first."""
        try:
            function(*arguments, timeout=milvus.CALL_TIMEOUT)
        except milvus.FAILURES as error:
            if refusal_of(error):
                raise self._failure(function, error) from error
            log.debug("call failed", call=function.__name__, error=milvus.error_message(error))

    def _failure(self, function: Callable[..., Any], error: Exception) -> Exception:
        message = milvus.error_message(error)
        if refusal := refusal_of(error):
            return ConfigurationError(f"Milvus at {self._settings.milvus_uri}: {refusal}")
        if milvus.is_missing(error):
            return CollectionLostError(message)
        return RestartRequiredError(
            f"Milvus call `{function.__name__}` to {self._settings.milvus_uri} failed for "
            f"{self._retry_seconds:.0f} s: {message}. Check that the server is up and has free "
            "disk space."
        )
