"""One message of queries to Milvus, as the build that is asked can be searched."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pymilvus import AnnSearchRequest, MilvusClient, RRFRanker

from schemas.collection import (
    BM25_FIELD,
    BM25_METRIC,
    ID_FIELD,
    METRIC,
    TEXT_FIELD,
    TITLE_FIELD,
    VECTOR_FIELD,
    Build,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CALL_TIMEOUT = 10.0
"""Seconds for one call. Less than a worker's (:data:`retrail_runtime.milvus.CALL_TIMEOUT`): an
agent waits, and a search that hangs is to be asked again while its caller is still there."""
CONSISTENCY = "Bounded"
"""A search does not wait for writes of this moment, although the collection's default is Strong."""
RRF_K = 60
"""Of Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion", SIGIR 2009."""
LEAST_CANDIDATES = 20
"""Hits of each half that are fused, at least: for a small k too the second of both halves beats the
first of one."""

_SHOWN = [ID_FIELD, TITLE_FIELD, TEXT_FIELD]


def ask(
    client: MilvusClient,
    build: Build,
    queries: Sequence[str],
    vectors: "NDArray[np.float32]",
    k: int,
) -> list[Any]:
    """The hits of each query, best first.

    Of a dense build by cosine similarity. Of a hybrid one the best by cosine and the best by BM25,
    fused: a document scores 1 / (60 + rank) in each half, at most 2/61 together. A query without
    known words has no hits by BM25, so it is answered by vectors alone.

    Args:
        queries: their texts, for BM25.
        vectors: theirs, one row each.

    Raises:
        MilvusException, grpc.RpcError: Milvus failed.
    """
    if build.search == "dense":
        return list(
            client.search(
                build.collection,
                data=list(vectors),
                anns_field=VECTOR_FIELD,
                limit=k,
                search_params={"metric_type": METRIC},
                output_fields=_SHOWN,
                consistency_level=CONSISTENCY,
                timeout=CALL_TIMEOUT,
            )
        )
    candidates = max(k, LEAST_CANDIDATES)
    return list(
        client.hybrid_search(
            build.collection,
            [
                AnnSearchRequest(list(vectors), VECTOR_FIELD, {"metric_type": METRIC}, candidates),
                AnnSearchRequest(
                    list(queries), BM25_FIELD, {"metric_type": BM25_METRIC}, candidates
                ),
            ],
            RRFRanker(RRF_K),
            limit=k,
            output_fields=_SHOWN,
            consistency_level=CONSISTENCY,
            timeout=CALL_TIMEOUT,
        )
    )
