"""Erases a trajectory, agent or tenant: ``retrail erase``.

1. Wait until the judge has read all events: a judged event that it writes later would be above the
   end offsets.
2. Write the erasure with the end offsets of all topics. From here on the miner, the trainer's local
   copies and the commands pass over the records below them.
3. Read ``labelled-pairs`` for the pairs that it covers.
4. Rewrite the training files and the gate's results that have such a pair or query. A run that
   selected its pairs before 2 and freezes them after 4 sees the erasure and begins again.
5. Withdraw the reported outcomes of the trajectories of these pairs, and of those that
   ``judged-events`` still has.

*A crash before 2* leaves nothing. *After it* the command is repeated: it writes a second erasure,
which covers the first, and 3 to 5 change only what is left.
"""

import secrets
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import closing, suppress
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime

import orjson
import structlog
from confluent_kafka import Producer

from consumers.indexing import plan
from consumers.training.history import RunHistory
from retrail_runtime import kafka
from retrail_runtime.erasures import ErasureLog
from schemas import erasures, judged, pairs
from schemas.erasures import Erasure, Erasures, SubjectKind, hashed, key_check
from schemas.errors import ConfigurationError, InputError, InvalidRecordError
from schemas.judged import Skipped, Tick
from schemas.pairs import LabelledPair
from schemas.runs import Range
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.data.draws import normalize_query
from trainer.data.examples import dump_file, parse_file
from trainer.data.lineage import History, holds, merged
from trainer.registry.registry import GATE_FILE, Registry

log = structlog.get_logger(__name__)

JUDGE_SECONDS = 30.0
"""How long to wait until the judge has read all events."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did.

    Attributes:
        pairs: number of pairs that it covers.
        runs: ids of the runs that trained on some of them.
        learned: versions of these runs' releases, and of all that descend from them.
        files: number of files in the registry that were rewritten now.
        reports: number of reported outcomes that were withdrawn now.
        topics: of the installation, in all revisions.
    """

    erasure: Erasure
    pairs: int
    runs: tuple[str, ...]
    learned: tuple[int, ...]
    files: int
    reports: int
    topics: tuple[str, ...]


def erase(settings: Settings, kind: SubjectKind, identifier: str) -> Erased:
    """Erase everything so far of a trajectory, agent or tenant.

    Raises:
        ConfigurationError: there is no key, or the user lacks a right.
        InputError: the judge has not read all events.
        BrokerUnavailableError, TopicMismatchError, DeliveryError: from Kafka.
        ModelError: the registry cannot be used.
    """
    if settings.erase_key is None:
        raise ConfigurationError(
            "Set RETRAIL_ERASE_KEY or RETRAIL_ERASE_KEY_FILE to a secret of 16 characters or more, "
            "here and for the workers mine and train. It hashes the identifiers on the topic "
            "erasures; keep it as long as that topic."
        )
    key = settings.erase_key.get_secret_value().encode()
    registry, known = Registry.of(settings), ErasureLog(settings)
    registry.require(writing=True)
    kafka.require_broker(settings)
    known.refresh()
    topics = tuple(_topics(settings))
    _await_judge(settings)
    erasure = Erasure(
        erasure_id=secrets.token_hex(16),
        kind=kind,
        subject=hashed(key, kind, identifier),
        key_check=key_check(key),
        ends=tuple(_ends(settings, topics)),
        erased_at=datetime.now(UTC),
    )
    record_key, value = erasures.encode(erasure)
    topic = Topics.of(settings).erasures
    producer = kafka.producer(settings)
    kafka.publish_and_wait(producer, topic, key=record_key, value=value)
    log.info("erasure written", erasure=erasure.erasure_id, kind=kind)
    same = [one for one in known.refresh().known if one.subject == erasure.subject]
    covering = Erasures(key, same)
    trajectories = {identifier} if kind == "trajectory" else set[str]()
    erased = _rewrite(settings, registry, covering, erasure, topics, trajectories)
    trajectories |= _judged(settings, topics, covering)
    return replace(erased, reports=_withdraw(settings, producer, erasure, trajectories))


def _topics(settings: Settings) -> Iterator[str]:
    own = Topics.of(settings.model_copy(update={"revision": ""}))
    revised = (f"{own.judged_events}-", f"{own.labelled_pairs}-")
    for name in sorted(kafka.partition_counts(settings)):
        if name in astuple(own) or name.startswith(revised):
            yield name


def _ends(settings: Settings, topics: tuple[str, ...]) -> Iterator[Range]:
    with closing(kafka.consumer(settings)) as reader:
        for topic in topics:
            for partition, (_, end) in kafka.offsets(reader, topic).items():
                yield Range(topic=topic, partition=partition, start=0, end=end)


def _await_judge(settings: Settings) -> None:
    """Return when the judge has committed all events that are on the topic now.

    Raises:
        InputError: it has not after :data:`JUDGE_SECONDS`.
    """
    topic = Topics.of(settings).trajectory_events
    deadline = time.monotonic() + JUDGE_SECONDS
    with closing(kafka.consumer(settings, settings.group("judge", revised=True))) as judge:
        marks = kafka.offsets(judge, topic)
        while True:
            behind = plan.remaining(kafka.committed(judge, topic, marks), marks)
            if not behind:
                return
            if time.monotonic() > deadline:
                raise InputError(
                    f"The judge has not read {behind:,} events, and could write verdicts of erased "
                    "data later. Nothing was erased: start `retrail worker judge`, and repeat the "
                    "command when it has caught up."
                )
            time.sleep(0.2)


def _rewrite(
    settings: Settings,
    registry: Registry,
    same: Erasures,
    erasure: Erasure,
    topics: tuple[str, ...],
    trajectories: set[str],
) -> Erased:
    """Steps 3 and 4, for all erasures of one subject; adds to ``trajectories`` those of pairs."""
    prefix = Topics.of(settings.model_copy(update={"revision": ""})).labelled_pairs
    covered: set[str] = set()
    places: set[tuple[str, int, int]] = set()
    queries: set[str] = set()
    others: set[str] = set()
    for topic in topics:
        for pair, place in _pairs(settings, topic, same) if topic.startswith(prefix) else ():
            asked = {normalize_query(one) for one in (pair.query, *pair.earlier_queries)}
            if place is not None:
                covered.add(pair.pair_id)
                places.add(place)
                trajectories.add(pair.trajectory_id)
                queries |= asked
            else:
                others |= asked
    files, runs, known = 0, list[str](), RunHistory(settings)
    named = {run.training_file.location for run in known.refresh().runs}
    for location in sorted({*named, *registry.training_files(settings.retriever)}):
        files += registry.notes.erase(
            location, lambda content: _without_pairs(content, covered), erasure.erasure_id
        )
    # Read again: a run that is announced after this reads a rewritten file.
    history = known.refresh()
    ids = {one.erasure_id for one in same.known}
    for run in history.runs:
        note = registry.notes.read(run.training_file.location)
        # Without its file a run may have trained on all pairs of its ranges.
        if ids & set(note.erasures) or (note.expired and _reaches(run.ranges, places)):
            runs.append(run.run_id)
    only, named = queries - others, queries if erasure.kind == "tenant" else set[str]()
    for release in history.releases.by_version.values():
        files += registry.notes.erase(
            f"{release.model.location}.{GATE_FILE}",
            lambda content: _without_queries(content, only, named),
            erasure.erasure_id,
        )
    learned = tuple(_learned(history, set(runs)))
    return Erased(erasure, len(covered), tuple(runs), learned, files, 0, topics)


def _judged(settings: Settings, topics: tuple[str, ...], same: Erasures) -> set[str]:
    """The trajectories of erased judged events, also of those without a pair."""
    prefix = Topics.of(settings.model_copy(update={"revision": ""})).judged_events
    found = set[str]()
    for topic in topics:
        for record in kafka.read_to_end(settings, topic) if topic.startswith(prefix) else ():
            with suppress(InvalidRecordError):
                event = judged.parse(record.value or b"").event
                if isinstance(event, Tick | Skipped) or event.trajectory_id in found:
                    continue
                name, agent, tenant = event.trajectory_id, event.agent.name, event.tenant
                place = topic, record.partition, record.offset
                if same.covering([place], trajectory=name, agent=agent, tenant=tenant):
                    found.add(name)
    return found


def _withdraw(
    settings: Settings, producer: Producer, erasure: Erasure, trajectories: Set[str]
) -> int:
    """Step 5; returns how many reports were withdrawn. Later ones are kept."""
    topic = Topics.of(settings).outcomes
    ends = {span.partition: span.end for span in erasure.ends if span.topic == topic}
    last = {record.key: record for record in kafka.read_to_end(settings, topic)}
    gone = [
        (record.key, None)
        for record in last.values()
        if record.value
        and record.offset < ends.get(record.partition, 0)
        and (record.key or b"").decode(errors="replace") in trajectories
    ]
    return kafka.send_all(producer, topic, gone)


def _reaches(ranges: Sequence[Range], places: Set[tuple[str, int, int]]) -> bool:
    """Whether one of the places is in the ranges."""
    spans = {topic: merged(ranges, topic) for topic in {topic for topic, _, _ in places}}
    return any(holds(spans[topic], partition, offset) for topic, partition, offset in places)


def _pairs(
    settings: Settings, topic: str, same: Erasures
) -> Iterator[tuple[LabelledPair, tuple[str, int, int] | None]]:
    """All pairs of a topic, with the places of those that are erased."""
    for record in kafka.read_to_end(settings, topic):
        try:
            pair = pairs.decode(record.value)
        except InvalidRecordError:
            continue
        place = record.partition, record.offset
        erased = same.of_pair(pair, topic, place, record.partition) is not None
        yield pair, (topic, *place) if erased else None


def _without_pairs(content: bytes, covered: Set[str]) -> bytes:
    examples = parse_file(content, "training file")
    kept = [one for one in examples if covered.isdisjoint((one.pair_id, one.found_by))]
    return content if len(kept) == len(examples) else dump_file(kept)


def _without_queries(content: bytes, queries: Set[str], named: Set[str]) -> bytes:
    """Without these queries, and without those ``named`` whose line has the name of a tenant."""

    def is_kept(line: bytes) -> bool:
        row = orjson.loads(line)
        # The last line, the pool, has no query.
        query = normalize_query(row.get("query", ""))
        return query not in queries and not (row.get("tenant") and query in named)

    return b"".join(line for line in content.splitlines(keepends=True) if is_kept(line))


def _learned(history: History, runs: Set[str]) -> Iterator[int]:
    """Releases of the runs, and their descendants, ascending."""
    known = history.releases
    for version in sorted(known.by_version):
        ancestors = (known.by_version[one] for one in known.lineage(version))
        if any(one.run_id in runs for one in ancestors):
            yield version
