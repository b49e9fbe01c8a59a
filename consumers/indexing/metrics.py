"""Metrics and health of the index worker."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import get_args

from prometheus_client import Counter, Gauge, Histogram

from consumers.indexing.plan import Role
from retrail_runtime import health
from retrail_runtime.health import State
from retrail_runtime.metrics import at_zero

DOCUMENTS_ENCODED = Counter(
    "retrail_index_documents_encoded_total", "Documents encoded.", ["version"]
)
DOCUMENTS_REUSED = Counter(
    "retrail_index_documents_reused_total",
    "Documents whose vector was stored, from an equal text under the same model.",
    ["version"],
)
ROWS_UPSERTED = Counter(
    "retrail_index_rows_upserted_total", "Rows written to a collection.", ["version"]
)
ROWS_DELETED = Counter(
    "retrail_index_rows_deleted_total", "Document ids deleted from a collection.", ["version"]
)
DEAD_LETTERS = Counter(
    "retrail_index_dead_letters_total", "Invalid records of documents, sent to documents.dlq."
)
SWAPS = Counter("retrail_index_swaps_total", "Times that the alias was set to another build.")
COMPARISONS = Counter(
    "retrail_index_comparisons_total",
    "Comparisons of a collection, or a part of it, with the documents.",
)
REPAIRS = Counter(
    "retrail_index_repairs_total", "Rows that a comparison repaired, by action.", ["action"]
)
CANDIDATES = Counter(
    "retrail_index_candidate_decisions_total",
    "Decisions on candidates by this worker: ship, pending, hold, reject, failed, abandoned.",
    ["decision"],
)
DROPPED = Counter("retrail_index_builds_dropped_total", "Builds dropped, by their role.", ["role"])
LIVE_VERSION = Gauge("retrail_live_version", "Version of the live release; 0 before the first.")
LIVE_SINCE = Gauge(
    "retrail_live_release_timestamp_seconds", "Unix time at which the live release became live."
)
SERVING_VERSION = Gauge(
    "retrail_index_live_version", "Version whose build the alias points at; 0 before the first."
)
BUILD_SECONDS = Histogram(
    "retrail_index_build_duration_seconds",
    "Time that a coordinator took to bring a build to its swap; short after a rollback.",
    buckets=(1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600),
)
MILVUS_SECONDS = Histogram(
    "retrail_index_milvus_duration_seconds",
    "Time of a call to Milvus with its retries, by method of pymilvus.",
    ["call"],
    buckets=(0.005, 0.025, 0.1, 0.5, 2.5, 10, 60, 600),
)
LAG = Gauge(
    "retrail_index_lag_records",
    "Records of documents that a build has not read yet.",
    ["collection", "partition"],
)
BUILDS = Gauge("retrail_index_builds", "Builds that this worker follows.")

at_zero(REPAIRS, ("upsert", "delete"))
at_zero(CANDIDATES, ("ship", "pending", "hold", "reject", "failed", "abandoned"))
at_zero(DROPPED, get_args(Role))


def show_build(version: int) -> None:
    """Show the counters of a build's version, at 0 before its first document."""
    for counter in (DOCUMENTS_ENCODED, DOCUMENTS_REUSED, ROWS_UPSERTED, ROWS_DELETED):
        at_zero(counter, [str(version)])


@dataclass(frozen=True, slots=True)
class Observation:
    """What the main loop of a worker last observed.

    Attributes:
        turned_at: its last turn, on the monotonic clock, in seconds.
        topic_missing: whether ``documents`` does not exist.
        serving: the collection that the alias points at.
        target: the collection that should serve.
    """

    turned_at: float
    topic_missing: bool = False
    serving: str | None = None
    target: str | None = None


def state_of(
    observed: Observation, building: Collection[float], loading: Collection[float], now: float
) -> State:
    """The state of a worker.

    Args:
        building: time of the last progress of each build that is followed: a batch of the encoder,
            or a poll of the topic. A slow encoder makes progress within a chunk, a stuck one does
            not.
        loading: time since which the model of a build is being loaded.
    """
    waiting = (observed.turned_at, *building, *loading)
    return State.of(
        {
            State.STUCK: building and now - min(building) > health.STUCK_SECONDS,
            State.SLOW: now - min(waiting) > health.SLOW_SECONDS,
            State.TOPIC_MISSING: observed.topic_missing,
            State.STARTING: observed.serving is None or not building,
            State.BUILDING: observed.serving != observed.target,
        }
    )
