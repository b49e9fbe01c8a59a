"""The search path that agents use: the build behind the alias, and one call to Milvus."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pymilvus import AnnSearchRequest, MilvusClient, RRFRanker

from retrail_runtime import milvus
from retrail_runtime.milvus import (
    BM25_FIELD,
    BM25_METRIC,
    ID_FIELD,
    METRIC,
    TEXT_FIELD,
    TITLE_FIELD,
    URL_FIELD,
    VECTOR_FIELD,
    Build,
)
from retrail_runtime.retry import Deadline
from schemas.errors import ModelError, NoIndexError
from schemas.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CALL_TIMEOUT = 10.0
"""Most seconds for one call to Milvus; a call that hangs is repeated until the deadline."""
CONSISTENCY = "Bounded"
"""A search does not wait for writes of this moment, although the collection's default is Strong."""
RRF_K = 60
"""Of Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion", SIGIR 2009."""
MIN_CANDIDATES = 20
"""Hits of each half that are fused, at least: for a small k too the second of both halves ranks
before the first of one."""

Tenants = Sequence[str | None]
"""For each query the tenant that it is limited to, or ``None``."""

OUTPUT_FIELDS = (ID_FIELD, TITLE_FIELD, TEXT_FIELD, URL_FIELD)


def call_timeout(deadline: Deadline) -> float:
    """Seconds for the next call to Milvus."""
    return max(0.01, min(CALL_TIMEOUT, deadline.remaining))


def resolve(client: MilvusClient, settings: Settings, deadline: Deadline) -> Build:
    """The build that the alias points at: name, version and model from one answer.

    Raises:
        NoIndexError: there is no such alias.
        MilvusException, grpc.RpcError: Milvus failed.
    """
    alias = settings.retriever
    try:
        found = client.describe_collection(alias, timeout=call_timeout(deadline))
        name = str(found["collection_name"])
        if name == alias:
            # Milvus 2.3 answers with the name that it was asked for.
            name = str(
                client.describe_alias(alias, timeout=call_timeout(deadline))["collection_name"]
            )
            found = client.describe_collection(name, timeout=call_timeout(deadline))
    except milvus.FAILURES as error:
        if milvus.is_missing(error):
            progress = _progress(client, settings, deadline)
            raise NoIndexError(
                f"There is no index yet{progress and f' ({progress})'}: Milvus at "
                f"{settings.milvus_uri} has no alias {alias!r}. "
                "It appears when an index worker (`retrail worker index`) has built the live "
                "release. Load documents with `retrail documents load`; if they are loaded and the "
                "worker runs, wait for its message `index swapped in`.",
                progress=progress,
            ) from error
        raise
    build = Build.read(name, found.get("properties") or {})
    if build is None:
        raise ModelError(
            f"The collection {name}, which the alias {alias!r} points at, was not built by "
            "Retrail: the model of its vectors is unknown. Set RETRAIL_RETRIEVER to another name.",
            collection=name,
        )
    return build


def _progress(client: MilvusClient, settings: Settings, deadline: Deadline) -> str:
    """How far the retriever's newest build is; empty without one."""
    names = client.list_collections(timeout=call_timeout(deadline))
    versions = {name: milvus.version_of(settings.retriever, name) or 0 for name in names}
    newest = max(versions, key=versions.__getitem__, default="")
    if not versions.get(newest):
        return ""
    found = client.describe_collection(newest, timeout=call_timeout(deadline))
    build = Build.read(newest, found.get("properties") or {})
    return build.progress if build else ""


def search(
    client: MilvusClient,
    build: Build,
    queries: Sequence[str],
    vectors: "NDArray[np.float32]",
    k: int,
    deadline: Deadline,
    *,
    tenants: Tenants = (),
    fields: Sequence[str] = OUTPUT_FIELDS,
    consistency: str = CONSISTENCY,
) -> list[Any]:
    """The hits of each query, best first, in one call for each tenant.

    A dense build is searched by cosine similarity. A hybrid one also by BM25, and both rankings are
    fused: a document scores 1 / (60 + rank) in each, at most 2/61 together. A query without known
    words has no hits by BM25, so it is answered by vectors alone.

    Args:
        queries: their texts, for BM25.
        vectors: theirs, one row each.
        tenants: whose documents each query finds, beside everyone's; ``None``: all documents.
            Without this argument no query is limited.
        fields: of each hit.
        consistency: ``Strong`` waits for all acknowledged writes.

    Raises:
        NoTenantsError: a query is limited to a tenant, and the rows have no tenants.
        MilvusException, grpc.RpcError: Milvus failed.
    """
    alike: dict[str, list[int]] = defaultdict(list)
    for at, tenant in enumerate(tenants or [None] * len(queries)):
        alike[milvus.tenant_filter(build, tenant)].append(at)
    answers: list[Any] = [None] * len(queries)
    for expression, places in alike.items():
        options: dict[str, Any] = {
            "limit": k,
            "output_fields": list(fields),
            "consistency_level": consistency,
            "timeout": call_timeout(deadline),
        }
        some = [queries[at] for at in places]
        found = _answers(client, build, some, vectors[places], k, expression, options)
        for at, hits in zip(places, found, strict=True):
            answers[at] = hits
    return answers


def _answers(
    client: MilvusClient,
    build: Build,
    queries: Sequence[str],
    vectors: "NDArray[np.float32]",
    k: int,
    expression: str,
    options: dict[str, Any],
) -> list[Any]:
    """One call to Milvus; ``expression`` filters the rows."""
    by_vector = {"metric_type": METRIC}
    if build.search == "dense":
        return list(
            client.search(
                build.collection,
                data=list(vectors),
                anns_field=VECTOR_FIELD,
                search_params=by_vector,
                filter=expression,
                **options,
            )
        )
    candidates = max(k, MIN_CANDIDATES)
    requests = [
        AnnSearchRequest(data, field, how, candidates, expr=expression or None)
        for data, field, how in (
            (list(vectors), VECTOR_FIELD, by_vector),
            (list(queries), BM25_FIELD, {"metric_type": BM25_METRIC}),
        )
    ]
    return list(client.hybrid_search(build.collection, requests, RRFRanker(RRF_K), **options))
