"""Metrics and health of the index worker."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import get_args

from prometheus_client import Counter, Gauge, Histogram

from consumers.indexing.plan import Role
from retrail_runtime.metrics import SLOW_SECONDS, STUCK_SECONDS, Health, at_zero

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
at_zero(DROPPED, get_args(Role))


def show_build(version: int) -> None:
    """Show the counters of a build's version, at 0 before its first document."""
    for counter in (DOCUMENTS_ENCODED, DOCUMENTS_REUSED, ROWS_UPSERTED, ROWS_DELETED):
        at_zero(counter, [str(version)])


class State(Enum):
    """A state of a worker: whether it is alive, whether it is ready, and its description."""

    STUCK = Health(False, False, "stuck: a chunk of documents makes no progress")
    SLOW = Health(True, False, "waiting for a call to Milvus, Kafka or the registry")
    TOPIC_MISSING = Health(True, False, "waiting: the topic documents does not exist")
    STARTING = Health(True, False, "starting: no build serves yet")
    BUILDING = Health(True, True, "building the live release; another build serves")
    WORKING = Health(True, True, "working")


@dataclass(frozen=True, slots=True)
class Observation:
    """What a worker last observed of itself; times in seconds of the monotonic clock.

    Attributes:
        turned_at: the last turn of the main loop.
        topic_missing: whether ``documents`` does not exist.
        serving: the collection that the alias points at.
        target: the collection that should serve.
    """

    turned_at: float
    topic_missing: bool = False
    serving: str | None = None
    target: str | None = None


def state_of(observed: Observation, moved_at: Collection[float], now: float) -> State:
    """The first state that applies, in the order of these lines.

    Args:
        moved_at: last progress of each build that is followed.
    """
    if moved_at and now - min(moved_at) > STUCK_SECONDS:
        return State.STUCK
    if now - observed.turned_at > SLOW_SECONDS:
        return State.SLOW
    if observed.topic_missing:
        return State.TOPIC_MISSING
    if observed.serving is None:
        return State.STARTING
    return State.WORKING if observed.serving == observed.target else State.BUILDING
