"""Reads and writes ``retriever-releases``; promotes and rolls back releases."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import structlog
from confluent_kafka import Producer

from retrail_runtime import kafka
from retrail_runtime.kafka import require_broker
from retrail_runtime.metrics import INVALID_RECORDS, at_zero
from schemas import releases
from schemas.errors import InvalidRecordError
from schemas.releases import CandidateDecision, Live, Record, Release
from schemas.runs import RunManifest
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.data import candidates
from trainer.data.lineage import History
from trainer.data.releases import FIRST, Releases, promoted, refusal, rolled_back

log = structlog.get_logger(__name__)

_REMEDIES = {
    "releases": "find the program that wrote it. To remove a record with the key live, run "
    "`retrail promote VERSION` with the release that should be live; to remove another one, write "
    "a record with its key and an empty value (docs/gate.md)",
    "runs": "find the program that wrote it. The record has no effect and cannot be removed",
}

at_zero(INVALID_RECORDS, _REMEDIES)

_reported: set[tuple[str, int]] = set()
"""Topic and offset of the refused records that this process has reported."""

State = Literal["live", "lineage", "quarantined", "other"] | candidates.State
"""``lineage``: an ancestor of the live release. ``quarantined``: a rollback quarantined its run.
``other``: none of these, and no candidate.
"""


def read(settings: Settings, known: Releases | None = None) -> Releases:
    """The current releases and ``live``.

    Args:
        known: an earlier result; only records after it are read.

    Raises:
        BrokerUnavailableError: Kafka does not answer.
        TopicMismatchError: there is no such topic.
    """
    known = known or Releases()
    topic = Topics.of(settings).retriever_releases
    return follow(known, kafka.read_to_end(settings, topic, {0: known.next_offset}))


def unused_model(settings: Settings, known: Releases) -> str:
    """Why ``RETRAIL_MODEL`` has no effect; empty if it is not set, or has one."""
    first = known.by_version.get(FIRST)
    given = "model" in settings.model_fields_set
    if first is None or not given or first.reason.endswith(f" {settings.model}"):
        return ""
    return (
        f"RETRAIL_MODEL={settings.model} has no effect: release {FIRST} is {first.reason}. To "
        "begin with another model, set RETRAIL_RETRIEVER to a new name."
    )


def follow(known: Releases, records: Iterable[kafka.Record]) -> Releases:
    """``known`` with ``records`` applied.

    A record that is invalid, or refused by :func:`trainer.data.releases.refusal`, is counted and
    logged, and has no effect.
    """
    for record in records:
        found: Record | None = None
        try:
            found = releases.decode(record.key, record.value)
            problem = refusal(known, found)
        except InvalidRecordError as error:
            # An empty value removes a record that was refused.
            problem = str(error) if record.value else ""
        if problem:
            report_refused("releases", record.topic, record.offset, record.key, problem)
        known = known.with_record(found, record.offset)
    return known


def report_refused(stage: str, topic: str, offset: int, key: bytes | None, why: str) -> None:
    """Count and log a refused record, once per process and offset."""
    if (topic, offset) in _reported:
        return
    _reported.add((topic, offset))
    INVALID_RECORDS.labels(stage=stage).inc()
    log.error(
        "record refused",
        topic=topic,
        offset=offset,
        key=(key or b"").decode(errors="replace"),
        reason=why,
        remedy=_REMEDIES[stage],
    )


def write_release(producer: Producer, settings: Settings, release: Release) -> int:
    """Write a release; returns its offset once acknowledged.

    Raises:
        DeliveryError: the record may or may not be on the topic; writing it again is harmless.
    """
    return _write(producer, settings, release)


def write_live(producer: Producer, settings: Settings, live: Live) -> int:
    """Write ``live``; returns its offset once acknowledged.

    Raises:
        DeliveryError: the record may or may not be on the topic; writing it again is harmless.
    """
    return _write(producer, settings, live)


def write_decision(
    producer: Producer, settings: Settings, decision: CandidateDecision
) -> CandidateDecision:
    """Write a decision on a candidate; returns the decision that counts, the first on the log.

    If another worker was first, its decision is written again: compaction keeps the last record.

    Raises:
        DeliveryError: the record may or may not be on the topic.
        BrokerUnavailableError, TopicMismatchError: from Kafka.
    """
    _write(producer, settings, decision)
    first = read(settings).decisions[decision.version]
    if first != decision:
        _write(producer, settings, first)
    return first


def promote(settings: Settings, version: int) -> Live:
    """Make any release live: ``retrail promote VERSION``.

    Raises:
        InputError: there is no such release, or its collection failed.
        BrokerUnavailableError, TopicMismatchError, DeliveryError: from Kafka.
    """
    return _change(settings, lambda known: promoted(known, version, datetime.now(UTC)))


def rollback(settings: Settings) -> Live:
    """Make the previous release live and quarantine the current one's run: ``retrail rollback``.

    Raises:
        InputError: there is no earlier release.
        BrokerUnavailableError, TopicMismatchError, DeliveryError: from Kafka.
    """
    return _change(settings, lambda known: rolled_back(known, datetime.now(UTC)))


@dataclass(frozen=True, slots=True)
class ListedRelease:
    """A release with its run, as ``retrail releases`` lists it.

    Attributes:
        second: the index worker's decision on a candidate; ``None`` without one.
        manifest: of its run; ``None`` for the first release.
        lineage: the release, its parent, its parent's parent, … to the first one.
        decision: the last word on it (:meth:`Releases.decision`).
    """

    release: Release
    second: CandidateDecision | None
    manifest: RunManifest | None
    lineage: tuple[int, ...]
    state: State
    decision: str

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        run = self.manifest and self.manifest.model_dump(
            mode="json", exclude_none=True, exclude={"retriever", "parent", "version"}
        )
        second = self.second and self.second.model_dump(mode="json", exclude_none=True)
        return self.release.model_dump(mode="json", exclude_none=True) | {
            "state": self.state,
            "second": second,
            "lineage": list(self.lineage),
            "run": run,
        }


def listed(history: History) -> list[ListedRelease]:
    """All releases in order of version."""
    known = history.releases
    live = known.live
    ancestors = known.lineage(live.version) if live else ()
    quarantined = live.quarantined if live else ()

    def state(release: Release) -> State:
        if release.version in ancestors:
            return "live" if release.version == ancestors[0] else "lineage"
        if release.run_id in quarantined:
            return "quarantined"
        return candidates.state(known, release.version) or "other"

    return [
        ListedRelease(
            release,
            known.decisions.get(version),
            history.run(release.run_id),
            known.lineage(version),
            state(release),
            known.decision(version),
        )
        for version, release in sorted(known.by_version.items())
    ]


def _write(producer: Producer, settings: Settings, record: Record) -> int:
    key, value = releases.encode(record)
    topic = Topics.of(settings).retriever_releases
    return kafka.publish_and_wait(producer, topic, key=key, value=value)


def _change(settings: Settings, decide: Callable[[Releases], Live]) -> Live:
    require_broker(settings, [Topics.of(settings).retriever_releases])
    known = read(settings)
    live = decide(known)
    if live != known.live:
        write_live(kafka.producer(settings), settings, live)
        log.info("live release changed", version=live.version, why=live.why)
    return live
