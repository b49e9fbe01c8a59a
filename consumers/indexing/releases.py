"""Releases in the index worker: follow them, register the first one, request a rebuild."""

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime

import structlog
from confluent_kafka import KafkaException, TopicPartition

from consumers import releases
from consumers.indexing import metrics, plan
from consumers.indexing.milvus import Milvus
from retrail_runtime import kafka
from retrail_runtime.milvus import SUCCESSOR_PROPERTY, collection_name
from schemas.errors import (
    BrokerUnavailableError,
    InputError,
    NoIndexError,
    RestartRequiredError,
    TopicMismatchError,
)
from schemas.releases import CandidateDecision
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.data import candidates
from trainer.data.releases import Releases, shipped

log = structlog.get_logger(__name__)

PATIENCE = 300.0
"""Seconds without progress after which :func:`await_documents` ends."""
AWAIT_SECONDS = 0.3


class ReleaseWatch:
    """Follows the releases without a consumer group; for one thread."""

    def __init__(self, settings: Settings) -> None:
        """Read all releases.

        Raises:
            BrokerUnavailableError, TopicMismatchError: from Kafka.
        """
        self._settings = settings
        self._known = releases.read(settings)
        if unused := releases.unused_model(settings, self._known):
            log.warning(unused)
        self._reader = kafka.consumer(settings)
        topic = Topics.of(settings).retriever_releases
        self._reader.assign([TopicPartition(topic, 0, self._known.next_offset)])

    def now(self) -> Releases:
        """All releases and ``live`` that have arrived.

        Raises:
            RestartRequiredError: reading failed.
        """
        try:
            messages = kafka.ready(self._settings, self._reader, 0)
            records = [
                record
                for record in map(kafka.record, messages)
                if record.offset >= self._known.next_offset
            ]
        except (BrokerUnavailableError, TopicMismatchError, KafkaException) as error:
            raise RestartRequiredError(f"Following the releases failed: {error}") from error
        if records:
            self._known = releases.follow(self._known, records)
        return self._known

    def close(self) -> None:
        """Leave Kafka."""
        self._reader.close()


class Candidates:
    """What the leading worker does about candidates, beside the coordinator; for one thread."""

    def __init__(self, settings: Settings, moved_at: Callable[[], float]) -> None:
        """``moved_at`` returns when the coordinator last made progress."""
        self._settings = settings
        self._moved_at = moved_at
        self._open: int | None = None
        self._opened_at = 0.0

    def stand_by(self) -> None:
        """Another worker leads, and makes the progress."""
        self._open = None

    def step(self, known: Releases) -> None:
        """Make a candidate live that passed, and abandon one without progress.

        *After a crash* between decision and ``live`` the next leader writes ``live``.

        Raises:
            BrokerUnavailableError, TopicMismatchError, DeliveryError: from Kafka.
        """
        version, undecided = candidates.passed(known), candidates.undecided(known)
        if version is not None:
            now = releases.read(self._settings, known)
            live = shipped(now, version, datetime.now(UTC))
            if live is not None:
                releases.write_live(kafka.producer(self._settings), self._settings, live)
                log.info("release shipped", version=live.version, previous=live.previous)
        if undecided != self._open:
            self._open, self._opened_at = undecided, time.monotonic()
        idle = time.monotonic() - max(self._opened_at, self._moved_at())
        if undecided is not None and idle >= self._settings.gate_candidate_seconds:
            reason = f"its build made no progress for {idle:,.0f} s; its pairs enter the next run"
            write_decision(
                self._settings,
                CandidateDecision(
                    version=undecided,
                    decision="abandoned",
                    reason=reason,
                    decided_at=datetime.now(UTC),
                ),
            )


def write_decision(settings: Settings, decision: CandidateDecision) -> None:
    """Write a decision on a candidate; another worker's earlier one counts instead.

    Raises:
        BrokerUnavailableError, TopicMismatchError, DeliveryError: from Kafka.
    """
    first = releases.write_decision(kafka.producer(settings), settings, decision)
    if first == decision:
        metrics.CANDIDATES.labels(decision.decision).inc()
    log.info(
        "candidate decided",
        version=first.version,
        decision=first.decision,
        reason=first.reason,
        first=first == decision,
    )


def request_rebuild(settings: Settings) -> str:
    """Request another build of the live release: ``retrail index rebuild``.

    The request is a property of the live release's collection: the id of the next build. The
    leading index worker creates that build with its own settings, and swaps it in when it is
    complete.

    Returns:
        The name of the new collection.

    Raises:
        InputError: there is no collection of the live release yet.
        BrokerUnavailableError, TopicMismatchError: from Kafka.
        MilvusUnavailableError: Milvus does not answer now.
        RestartRequiredError: Milvus stopped answering.
    """
    kafka.require_broker(settings, [Topics.of(settings).retriever_releases])
    live = releases.read(settings).live
    with closing(Milvus(settings)) as milvus:
        wanted = plan.target(milvus.builds(), live.version if live else None)
        if wanted is None:
            raise InputError(
                "The live release has no collection yet. The index worker (`retrail worker "
                "index`) builds it with its current settings."
            )
        successor = secrets.token_hex(4)
        milvus.set_property(wanted, SUCCESSOR_PROPERTY, successor)
    return collection_name(settings.retriever, wanted.version, successor)


def await_documents(
    settings: Settings, progress: Callable[[int], object], patience: float = PATIENCE
) -> None:
    """Return once what is on ``documents`` now is in the collection that is searched.

    Args:
        progress: called with the number of records that the index worker has not read.

    Raises:
        NoIndexError: no record was read for ``patience`` seconds.
        BrokerUnavailableError, TopicMismatchError: from Kafka.
        MilvusUnavailableError: Milvus does not answer now.
        RestartRequiredError: Milvus stopped answering.
    """
    topic = Topics.of(settings).documents
    left, moved_at = -1, time.monotonic()
    with closing(Milvus(settings)) as milvus, closing(kafka.consumer(settings)) as any_group:
        ends = kafka.offsets(any_group, topic)
        topic_id = kafka.topic_id(kafka.admin(settings), topic)
        while left:
            aliased = milvus.aliased()
            before, left = left, sum(end - low for low, end in ends.values()) or 1
            for build in milvus.builds():
                if build.collection == aliased:
                    followed = plan.Assignment(build, topic_id)
                    left = _unread(settings, plan.group(settings.group("index"), followed), ends)
            if left != before:
                moved_at = time.monotonic()
                progress(left)
            elif time.monotonic() - moved_at > patience:
                raise NoIndexError(
                    f"The index has not changed for {patience:.0f} s, and {left:,} records of "
                    f"{topic} are not in it. Does an index worker run (`retrail worker index`)?"
                )
            time.sleep(AWAIT_SECONDS)


def _unread(settings: Settings, group: str, ends: Mapping[int, tuple[int, int]]) -> int:
    """Records before ``ends`` that a group has not read."""
    with closing(kafka.consumer(settings, group)) as member:
        return plan.remaining(kafka.committed(member, Topics.of(settings).documents, ends), ends)
