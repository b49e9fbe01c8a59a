"""What the gate takes from the live collection: the parent's first hits, and its vectors.

The gate does not depend on Milvus: without an answer its pool is a sample, and the parent encodes.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TypeVar

import numpy as np
import structlog
from pymilvus import MilvusClient

from consumers.training.gate import TOP
from consumers.vectors import Vectors as ByHash
from retrail_runtime import milvus, search
from retrail_runtime.milvus import HASH_FIELD, ID_FIELD, VECTOR_FIELD, Build
from retrail_runtime.retry import Deadline
from schemas.errors import (
    ConfigurationError,
    MilvusUnavailableError,
    ModelError,
    NoIndexError,
    NoTenantsError,
)
from schemas.settings import Settings
from trainer.model.encoder import Vectors

log = structlog.get_logger(__name__)

T = TypeVar("T")

_UNUSABLE = (
    *(ConfigurationError, MilvusUnavailableError),
    *(NoIndexError, NoTenantsError, ModelError),
)
SECONDS = 30.0
"""For each call."""
IDS_AT_ONCE = 500
QUERIES_AT_ONCE = 100


class LiveIndex:
    """The collection behind the alias, if it is that of the model with this digest."""

    def __init__(self, settings: Settings, digest: str) -> None:
        self._settings = settings
        self._digest = digest

    def hits(
        self, queries: Sequence[str], vectors: Vectors, tenants: search.Tenants
    ) -> list[list[str]]:
        """Ids of the first :data:`TOP` hits of each query, best first; empty without an index."""

        def ask(client: MilvusClient, build: Build) -> list[list[str]]:
            found: list[list[str]] = []
            for start in range(0, len(queries), QUERIES_AT_ONCE):
                part = slice(start, start + QUERIES_AT_ONCE)
                found += [
                    [str(hit.id) for hit in answer]
                    for answer in search.search(
                        client,
                        build,
                        queries[part],
                        vectors[part],
                        TOP,
                        Deadline(SECONDS),
                        tenants=tenants[part],
                        fields=[ID_FIELD],
                    )
                ]
            return found

        return self._answer(ask) or []

    def vectors(self, doc_ids: Sequence[str]) -> ByHash:
        """Vectors by fingerprint of the rows with these ids; empty without an index."""

        def ask(client: MilvusClient, build: Build) -> ByHash:
            found = {}
            for start in range(0, len(doc_ids), IDS_AT_ONCE):
                rows = client.query(
                    build.collection,
                    filter=milvus.ids_filter(doc_ids[start : start + IDS_AT_ONCE]),
                    output_fields=[HASH_FIELD, VECTOR_FIELD],
                    consistency_level=search.CONSISTENCY,
                    timeout=SECONDS,
                )
                for row in rows:
                    found[row[HASH_FIELD]] = np.asarray(row[VECTOR_FIELD], dtype=np.float32)
            return found

        return self._answer(ask) or {}

    def _answer(self, ask: Callable[[MilvusClient, Build], T]) -> T | None:
        why = "it has another model"
        try:
            with closing(milvus.connect(self._settings)) as client:
                build = search.resolve(client, self._settings, Deadline(SECONDS))
                if build.digest == self._digest:
                    return ask(client, build)
        except _UNUSABLE as error:
            why = str(error)
        except milvus.FAILURES as error:
            why = milvus.error_message(error)
        log.warning("the gate cannot use the live collection", reason=why)
        return None
