"""The topics: names, partitions, retention and compaction.

``retrail topics create`` creates the topics of :func:`specs`, and reports those that differ.
"""

from dataclasses import dataclass
from typing import Literal

from schemas.settings import Settings

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""Largest record on the source topics; the client refuses larger events."""

ADDED_BYTES = 64 * 1024
"""Capacity of output topics for what a worker adds to a record (error headers, offsets)."""

SAFE_REPLICAS = 3
"""With two of them in sync for a write, the loss of any broker loses no record."""

Retention = Literal["time", "unlimited", "compact"]


@dataclass(frozen=True, slots=True)
class Topics:
    """Names of the topics under a prefix and a revision."""

    trajectory_events: str
    judged_events: str
    labelled_pairs: str
    documents: str
    training_runs: str
    retriever_releases: str
    outcomes: str
    trajectory_events_dlq: str
    documents_dlq: str
    erasures: str
    otlp_spans: str
    agent_spans: str

    @classmethod
    def of(cls, settings: Settings) -> "Topics":
        """The names for the prefix and revision of ``settings``."""
        prefix = settings.topic_prefix
        suffix = f"-{settings.revision}" if settings.revision else ""
        return cls(
            trajectory_events=f"{prefix}trajectory-events",
            judged_events=f"{prefix}judged-events{suffix}",
            labelled_pairs=f"{prefix}labelled-pairs{suffix}",
            documents=f"{prefix}documents",
            training_runs=f"{prefix}training-runs",
            retriever_releases=f"{prefix}retriever-releases",
            outcomes=f"{prefix}outcomes",
            trajectory_events_dlq=f"{prefix}trajectory-events.dlq",
            documents_dlq=f"{prefix}documents.dlq",
            erasures=f"{prefix}erasures",
            otlp_spans=f"{prefix}otlp_spans",
            agent_spans=f"{prefix}agent-spans",
        )

    @property
    def single(self) -> tuple[str, ...]:
        """Topics with one partition: it gives their records an order, and elects a leader."""
        return self.training_runs, self.retriever_releases, self.erasures


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """The specification of a topic.

    Attributes:
        partitions: never changed in place (use a new topic prefix).
        retention: ``time`` (``retention_ms``), ``unlimited``, or ``compact`` by key.
        log_append_time: whether the broker sets the timestamps.
        max_message_bytes: largest record batch that the broker accepts.
    """

    name: str
    partitions: int
    replication: int
    retention: Retention
    retention_ms: int = -1
    log_append_time: bool = False
    max_message_bytes: int = MAX_EVENT_BYTES

    def config(self) -> dict[str, str]:
        """Kafka topic configuration."""
        config = {
            "cleanup.policy": "compact" if self.retention == "compact" else "delete",
            "max.message.bytes": str(self.max_message_bytes),
        }
        if self.retention == "compact":
            config["delete.retention.ms"] = str(7 * 24 * 3600 * 1000)
        else:
            config["retention.ms"] = str(self.retention_ms)
        if self.replication >= SAFE_REPLICAS:
            config["min.insync.replicas"] = "2"
        if self.log_append_time:
            config["message.timestamp.type"] = "LogAppendTime"
        return config


def specs(settings: Settings, brokers: int = 1) -> list[TopicSpec]:
    """Every topic that an installation needs, on a cluster of so many brokers."""
    topics, n = Topics.of(settings), settings.partitions
    replication = settings.replication or (SAFE_REPLICAS if brokers >= SAFE_REPLICAS else 1)
    events_ms = int(settings.kafka_retention_hours * 3600 * 1000)
    hours = settings.pairs_retention_hours
    pairs: tuple[Retention, int] = (
        ("time", int(hours * 3600 * 1000)) if hours else ("unlimited", -1)
    )
    larger = MAX_EVENT_BYTES + ADDED_BYTES
    return [
        TopicSpec(topics.trajectory_events, n, replication, "time", events_ms, True),
        TopicSpec(topics.judged_events, n, replication, "time", events_ms, True, larger),
        TopicSpec(topics.labelled_pairs, n, replication, *pairs),
        TopicSpec(topics.documents, n, replication, "compact"),
        TopicSpec(topics.training_runs, 1, replication, "unlimited"),
        TopicSpec(topics.retriever_releases, 1, replication, "compact"),
        TopicSpec(topics.outcomes, n, replication, "compact"),
        *(
            TopicSpec(name, n, replication, "time", events_ms, max_message_bytes=larger)
            for name in (topics.trajectory_events_dlq, topics.documents_dlq)
        ),
        TopicSpec(topics.erasures, 1, replication, "unlimited"),
        # As OpenTelemetry's Collector names it.
        TopicSpec(topics.otlp_spans, n, replication, "time", events_ms),
        TopicSpec(topics.agent_spans, n, replication, "time", events_ms, True),
    ]
