"""Releases: reading and writing ``retriever-releases``, and what an operator may do with them.

``live`` is the truth about what serves; the Milvus alias follows it. A release is written once and
never changed; ``live`` is the one record that is replaced.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
from confluent_kafka import Producer
from pydantic import ValidationError

from consumers import metrics
from retrail_runtime import kafka
from retrail_runtime.kafka import require_broker
from schemas.errors import InputError
from schemas.events import describe
from schemas.releases import LIVE_KEY, Live, Release
from schemas.settings import Settings
from schemas.topics import Topics

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Releases:
    """What retriever-releases says.

    Attributes:
        by_version: every release.
        offsets: where each release lies on the topic.
        live: what should serve; ``None`` before the first release.
        live_offset: where ``live`` lies on the topic, -1 without one.
        next_offset: of the first record not read yet.
    """

    by_version: Mapping[int, Release] = field(default_factory=dict)
    offsets: Mapping[int, int] = field(default_factory=dict)
    live: Live | None = None
    live_offset: int = -1
    next_offset: int = 0

    def lineage(self, version: int) -> tuple[int, ...]:
        """``version``, its parent, its parent's parent, … to the first release."""
        chain: list[int] = []
        current: int | None = version
        while current is not None and current in self.by_version and current not in chain:
            chain.append(current)
            current = self.by_version[current].parent
        return tuple(chain)

    def run_of(self, version: int) -> str | None:
        """The run that made a version; ``None`` for the first release."""
        release = self.by_version.get(version)
        return release.run_id if release else None


def read(settings: Settings, known: Releases | None = None) -> Releases:
    """All releases and ``live``, as of the call.

    Args:
        known: an earlier answer; only what came after it is read.

    Raises:
        BrokerUnavailableError: Kafka does not answer.
        TopicMismatchError: there is no such topic.
    """
    known = known or Releases()
    topic = Topics.of(settings).retriever_releases
    return follow(known, kafka.read_to_end(settings, topic, {0: known.next_offset}))


def follow(known: Releases, records: Iterable[kafka.Record]) -> Releases:
    """``known`` and then ``records``; a malformed record is counted, logged and passed over."""
    by_version, offsets = dict(known.by_version), dict(known.offsets)
    live, live_offset, next_offset = known.live, known.live_offset, known.next_offset
    for record in records:
        next_offset = record.offset + 1
        try:
            match record.key, record.value:
                case key, bytes(value) if key == LIVE_KEY.encode():
                    live, live_offset = Live.model_validate_json(value), record.offset
                case bytes(key), bytes(value):
                    release = Release.model_validate_json(value)
                    if key != _key(release):
                        raise ValueError(f"key {key!r} is not that of release {release.version}")
                    by_version[release.version] = release
                    offsets[release.version] = record.offset
                case _:
                    raise ValueError("a release has a key and a value")
        except ValueError as error:
            metrics.INVALID_RECORDS.labels(stage="releases").inc()
            log.warning(
                "malformed release passed over", offset=record.offset, error=complaint(error)
            )
    return Releases(by_version, offsets, live, live_offset, next_offset)


def write_release(producer: Producer, settings: Settings, release: Release) -> int:
    """Write a release; returns its offset once acknowledged.

    Raises:
        DeliveryError: it may or may not be on the topic; writing it again does no harm.
    """
    topic = Topics.of(settings).retriever_releases
    return kafka.publish_and_wait(producer, topic, key=_key(release), value=release.to_json())


def write_live(producer: Producer, settings: Settings, live: Live) -> int:
    """Write what should serve; returns the offset once acknowledged.

    Raises:
        DeliveryError: it may or may not be on the topic; writing it again does no harm.
    """
    topic = Topics.of(settings).retriever_releases
    return kafka.publish_and_wait(producer, topic, key=LIVE_KEY.encode(), value=live.to_json())


def promote(settings: Settings, version: int) -> Live:
    """Make any release the one that serves: ``retrail promote VERSION``.

    Runs of its lineage leave quarantine.

    Raises:
        InputError: there is no such release.
        BrokerUnavailableError, TopicMismatchError, DeliveryError: from Kafka.
    """
    return _change(settings, lambda known: promoted(known, version, datetime.now(UTC)))


def rollback(settings: Settings) -> Live:
    """Go back to the release before and quarantine the run of the one left: ``retrail rollback``.

    Raises:
        InputError: there is nothing to go back to.
        BrokerUnavailableError, TopicMismatchError, DeliveryError: from Kafka.
    """
    return _change(settings, lambda known: rolled_back(known, datetime.now(UTC)))


def promoted(known: Releases, version: int, now: datetime) -> Live:
    """``live`` after promoting ``version``: as it is, if that version is live already."""
    if version not in known.by_version:
        there = ", ".join(map(str, sorted(known.by_version))) or "none yet"
        raise InputError(f"There is no release {version}. Releases: {there}.")
    live = known.live
    if live is not None and live.version == version:
        return live
    own_runs = {known.run_of(ancestor) for ancestor in known.lineage(version)}
    return Live(
        version=version,
        previous=live.version if live else None,
        why="promoted by an operator",
        changed_at=now,
        quarantined=tuple(run for run in _quarantined(live) if run not in own_runs),
    )


def rolled_back(known: Releases, now: datetime) -> Live:
    """``live`` after a rollback.

    The target is the version that was live before; if that one was itself rolled back, the parent
    of the live release. The run of the version left is quarantined, unless the target descends
    from it.
    """
    live = known.live
    if live is None:
        raise InputError("There is no live release yet, so nothing to roll back.")
    target = live.previous
    if target is None or known.run_of(target) in live.quarantined:
        release = known.by_version.get(live.version)
        target = release.parent if release else None
    if target is None or target not in known.by_version:
        raise InputError(
            f"Release {live.version} is the first of its line, so there is none to roll back to. "
            "`retrail promote VERSION` makes another one live."
        )
    left = known.run_of(live.version)
    kept = {known.run_of(ancestor) for ancestor in known.lineage(target)}
    quarantined = [run for run in live.quarantined if run not in kept]
    if left is not None and left not in kept and left not in quarantined:
        quarantined.append(left)
    return Live(
        version=target,
        previous=live.version,
        why=f"rolled back from release {live.version}",
        changed_at=now,
        quarantined=tuple(quarantined),
    )


def goes_live(known: Releases, version: int) -> bool:
    """Whether a release is to become live.

    Not if the gate said otherwise, if its parent is not live any more, or if ``live`` was written
    after the release: then somebody has decided since, and a repetition must not undo that.
    """
    release, live = known.by_version.get(version), known.live
    return (
        release is not None
        and live is not None
        and release.decision == "ship"
        and release.parent == live.version
        and known.live_offset < known.offsets[version]
    )


def shipped(known: Releases, version: int, now: datetime) -> Live | None:
    """``live`` after a release passed the gate; ``None`` if it does not go live."""
    live = known.live
    if live is None or not goes_live(known, version):
        return None
    return Live(
        version=version,
        previous=live.version,
        why=f"passed the gate: {known.by_version[version].reason}",
        changed_at=now,
        quarantined=live.quarantined,
    )


def complaint(error: Exception) -> str:
    """What is wrong with a record, in one line."""
    if isinstance(error, ValidationError):
        return describe(error.errors(include_url=False, include_context=False))
    return str(error)


def _change(settings: Settings, decide: Callable[[Releases], Live]) -> Live:
    require_broker(settings, [Topics.of(settings).retriever_releases])
    known = read(settings)
    live = decide(known)
    if live != known.live:
        write_live(kafka.producer(settings), settings, live)
        log.info("live release changed", version=live.version, why=live.why)
    return live


def _key(release: Release) -> bytes:
    return str(release.version).encode()


def _quarantined(live: Live | None) -> tuple[str, ...]:
    return live.quarantined if live else ()
