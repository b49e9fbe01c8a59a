"""The index consumer's Milvus: collections of builds, rows, and the alias.

What Milvus Lite 3.2.2 does under pymilvus 3.0.2 (seen by trying; :mod:`retrail_runtime.milvus` has
more):

- Properties given at creation come back from ``describe_collection``, also after a kill -9 of the
  server; so do rows that were acknowledged, and aliases.
- VARCHAR limits are not enforced there, but by real Milvus (in bytes), so texts are cut here.
- After a restart every collection is "released" until ``load_collection``; upserts and deletes
  work all the same. ``load_collection`` and ``flush`` may be repeated.
- ``create_index`` on an indexed field raises code 35, and ``drop_index`` on a loaded collection
  code 6. Building one takes 0.5 s at least: pymilvus asks twice a second.
- ``alter_alias`` on an unknown alias raises code 100, ``create_alias`` on a known one code 1;
  dropping a collection drops its aliases with it.
- Of two rows with one key in a batch the last wins on Lite; on Milvus 2.x both may stay.
- ``describe_collection`` by alias tells the collection's own name.
"""

import threading
from collections.abc import Iterable
from itertools import islice
from typing import Any

import structlog
from pymilvus import MilvusClient

from consumers.indexing import schema
from consumers.indexing.rows import BATCH_ROWS, Row, batches
from retrail_runtime import milvus
from retrail_runtime.milvus_calls import PATIENCE, Calls, CollectionLostError, NotLoaded, Refused
from schemas.collection import (
    HASH_FIELD,
    ID_FIELD,
    METRIC,
    SERVED_PROPERTY,
    VECTOR_FIELD,
    Build,
    version_of,
)
from schemas.errors import RestartRequiredError
from schemas.settings import Settings

log = structlog.get_logger(__name__)

LONG_CALL = 3600.0
"""Seconds for building an index or loading a collection."""
PAGE = 10_000
"""Rows asked for at once; Milvus gives up to 16,384."""
SWAP_ATTEMPTS = 50


class Milvus:
    """Milvus for one process; safe to share between its threads.

    Every method repeats a call for up to ``patience`` seconds while Milvus does not answer.

    Raises:
        RestartRequiredError: it did not answer in all that time, or refused.
        CollectionLostError: the collection is gone (all methods but :meth:`drop`).
    """

    def __init__(
        self,
        settings: Settings,
        stop: threading.Event | None = None,
        *,
        client: MilvusClient | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """Connect; ``stop`` ends the waiting for a lost server early.

        Raises:
            MilvusUnavailableError: Milvus does not answer now.
        """
        self._settings = settings
        self._stop = stop or threading.Event()
        self._client = client or milvus.connect(settings)
        self._calls = Calls(settings, self._stop, patience)

    def close(self) -> None:
        """Leave Milvus."""
        self._client.close()

    def require_search(self) -> None:
        """Check that this Milvus can be searched as the settings say.

        Raises:
            ConfigurationError: it is too old.
        """
        milvus.require_search(self._settings, self._calls(self._client.get_server_version))

    # -- Builds -----------------------------------------------------------------------------

    def builds(self) -> tuple[Build, ...]:
        """Every build of the retriever, by version."""
        found = []
        for name in self._calls(self._client.list_collections):
            if version_of(self._settings.retriever, name) is None:
                continue
            try:
                build = self._describe(name)
            except CollectionLostError:
                continue
            if build is not None:
                found.append(build)
        return tuple(sorted(found, key=lambda build: build.version))

    def exists(self, build: Build) -> bool:
        """Whether the collection is still that of this very build."""
        try:
            found = self._describe(build.collection)
        except CollectionLostError:
            return False
        return found is not None and found.build_id == build.build_id

    def create(self, build: Build, dimension: int) -> None:
        """Create the collection of a build, unless somebody did so already."""
        if self._calls(self._client.has_collection, build.collection):
            return
        self._calls(
            self._client.create_collection,
            build.collection,
            schema=schema.schema(build.search, dimension),
            properties=build.properties(),
            # For `hashes`; every other call names a level of its own.
            consistency_level="Strong",
        )

    def drop(self, build: Build) -> None:
        """Drop the collection of this very build; nothing if it is gone or another's."""
        if self.exists(build):
            self._calls(self._client.drop_collection, build.collection, timeout=LONG_CALL)

    # -- Rows -------------------------------------------------------------------------------

    def upsert(self, build: Build, rows: Iterable[Row]) -> int:
        """Write rows, the last of each id, in batches; returns how many once acknowledged."""
        distinct = list({row.doc_id: row for row in rows}.values())
        for batch in batches(distinct, search=build.search):
            fields = [row.fields(build.search) for row in batch]
            self._calls(self._client.upsert, build.collection, fields)
        return len(distinct)

    def delete(self, build: Build, doc_ids: Iterable[str]) -> int:
        """Delete rows; ids that are not there do no harm. Returns how many ids were given."""
        remaining = iter(dict.fromkeys(doc_ids))
        count = 0
        while some := list(islice(remaining, BATCH_ROWS)):
            self._calls(self._client.delete, build.collection, filter=milvus.ids_filter(some))
            count += len(some)
        return count

    def count(self, build: Build) -> int:
        """Number of rows, all acknowledged writes included."""
        answer = self._query(build, "", output_fields=["count(*)"])
        return int(answer[0]["count(*)"])

    def hashes(self, build: Build) -> dict[str, str]:
        """Content hash by document id of every row, all acknowledged writes included."""
        found: dict[str, str] = {}
        expression = f'{ID_FIELD} != ""'
        while True:
            page = self._query(
                build,
                expression,
                output_fields=[ID_FIELD, HASH_FIELD],
                limit=PAGE,
                # In the order of ids, as pymilvus' own iterator asks; that one breaks on quotes.
                # pymilvus then leaves the consistency to the collection, which is Strong.
                iterator="True",
            )
            found.update((row[ID_FIELD], row[HASH_FIELD]) for row in page)
            if len(page) < PAGE:
                return found
            expression = f"{ID_FIELD} > {milvus.literal(page[-1][ID_FIELD])}"

    # -- Index ------------------------------------------------------------------------------

    def make_searchable(self, build: Build) -> None:
        """Write everything to disk, build the indexes that are not there, and load."""
        self._calls(self._client.flush, build.collection, timeout=LONG_CALL)
        self._ensure_indexes(build)
        if not self._is_loaded(build):
            self._load(build)

    def load(self, build: Build) -> None:
        """Load the collection, unless it is loaded; with an index, without which none loads.

        An index that cannot be read is built again.
        """
        if not self._is_loaded(build):
            self._ensure_indexes(build)
            self._load(build)

    def probe(self, build: Build) -> bool:
        """Whether a search for a stored vector finds something; so it does in an empty collection.

        All acknowledged writes are included.
        """
        stored = self._query(build, f'{ID_FIELD} != ""', output_fields=[VECTOR_FIELD], limit=1)
        if not stored:
            return True
        answer = self._calls(
            self._client.search,
            build.collection,
            data=[stored[0][VECTOR_FIELD]],
            anns_field=VECTOR_FIELD,
            limit=1,
            search_params={"metric_type": METRIC},
            output_fields=[ID_FIELD],
            consistency_level="Strong",
        )
        return bool(answer and answer[0])

    # -- Alias ------------------------------------------------------------------------------

    def aliased(self) -> str | None:
        """The collection that the retriever's alias points at."""
        try:
            answer = self._calls(self._client.describe_alias, self._settings.retriever)
        except CollectionLostError:
            return None
        return str(answer["collection_name"])

    def swap(self, build: Build) -> None:
        """Point the alias at a build; returns once Milvus says that it does.

        The build is marked as having served first, so that a crash in between keeps it.
        """
        self._calls(
            self._client.alter_collection_properties,
            build.collection,
            properties={SERVED_PROPERTY: "true"},
        )
        alias = self._settings.retriever
        for _ in range(SWAP_ATTEMPTS):
            if self.aliased() is None:
                self._calls.attempt(self._client.create_alias, build.collection, alias)
            if self.aliased() != build.collection:
                # Milvus 2.3 keeps the alias of a dropped collection, and yet does not know it.
                self._calls.attempt(self._client.alter_alias, build.collection, alias)
            if self.aliased() == build.collection:
                return
            self._stop.wait(0.1)
        raise RestartRequiredError(
            f"Milvus does not let the alias {alias} point at {build.collection}: it points at "
            f"{self.aliased()}. Is there a collection of the alias's name?"
        )

    # -- Calls ------------------------------------------------------------------------------

    def _describe(self, collection: str) -> Build | None:
        found = self._calls(self._client.describe_collection, collection)
        return Build.read(collection, found.get("properties") or {})

    def _query(self, build: Build, expression: str, **options: Any) -> Any:
        """Query a collection that may have been released by a restart of the server."""
        for _ in range(2):
            try:
                return self._calls(
                    self._client.query,
                    build.collection,
                    filter=expression,
                    consistency_level="Strong",
                    **options,
                )
            except NotLoaded:
                self.load(build)
        raise RestartRequiredError(f"Milvus keeps releasing {build.collection}.")

    def _is_loaded(self, build: Build) -> bool:
        state = self._calls(self._client.get_load_state, build.collection)["state"]
        if state.name == "NotExist":
            raise CollectionLostError(f"{build.collection} is gone")
        return bool(state.name == "Loaded")

    def _load(self, build: Build) -> None:
        load = self._client.load_collection
        try:
            self._calls(load, build.collection, timeout=LONG_CALL, repeat_refused=False)
        except Refused as error:
            log.warning("building the index again", collection=build.collection, why=str(error))
            self._calls(self._client.release_collection, build.collection)
            self._drop_indexes(build)
            self._ensure_indexes(build)
            self._calls(load, build.collection, timeout=LONG_CALL)
        log.info("collection loaded", collection=build.collection)

    def _ensure_indexes(self, build: Build) -> None:
        """One at a time: a kill in between leaves the rest to the next call."""
        for field in schema.INDEXED[build.search]:
            if not self._indexes(build, field):
                params = schema.index_params(field, self._settings.milvus_index)
                self._calls(self._client.create_index, build.collection, params, timeout=LONG_CALL)

    def _drop_indexes(self, build: Build) -> None:
        for field in schema.INDEXED[build.search]:
            for name in self._indexes(build, field):
                self._calls(self._client.drop_index, build.collection, name)

    def _indexes(self, build: Build, field: str) -> list[str]:
        return self._calls(self._client.list_indexes, build.collection, field)
