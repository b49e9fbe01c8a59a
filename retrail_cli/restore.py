"""``retrail restore-check``."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

import typer

from retrail_cli.output import counted, print_state
from retrail_cli.records import recent

if TYPE_CHECKING:
    from schemas.runs import Range
    from schemas.settings import Settings

State = Literal["ok", "look", "missing"]
Finding = tuple[State, str]
Ends = Mapping[tuple[str, int], int]
"""End offset by topic and partition."""

RECENT = 50_000
"""Records at the end of a partition that are read."""


def check() -> None:
    """Check a restored installation before its workers start.

    Checks that all topics are there with the right partitions, that the registry has the models of
    the releases, that training runs and erasures name offsets that exist, that pairs have their
    documents, where the judge begins, and whether local copies belong to these topics. It changes
    nothing. docs/operate.md explains what to save and how to restore it.

    Each line is ok, missing (restore it, or do what the line says), or look (a person decides).
    Exit status 1: something is missing.

    \b
    Example:
      RETRAIL_KAFKA_BOOTSTRAP=new:9092 retrail restore-check
    """
    from schemas.errors import RetrailError
    from schemas.settings import load

    settings = load()
    missing = False
    for what, look in CHECKS.items():
        try:
            findings = list(look(settings)) or [("ok", "")]
        except RetrailError as error:
            findings = [("missing", str(error))]
        for state, text in findings:
            missing = missing or state == "missing"
            print_state(state, f"{what}: {text}" if text else what)
    if missing:
        raise typer.Exit(1)


def topics(settings: "Settings") -> Iterator[Finding]:
    from retrail_cli.installation import topics_exist

    yield "ok", topics_exist(settings)


def live_release(settings: "Settings") -> Iterator[Finding]:
    from consumers import releases
    from trainer.registry.registry import Registry

    known = releases.read(settings)
    if known.live is None:
        yield "missing", "retriever-releases has no live release."
        return
    registry = Registry.of(settings)
    registry.open(known.by_version[known.live.version].model)
    yield "ok", f"{known.live.version}, its files are in {registry.name}"
    lost = [
        str(version)
        for version, release in sorted(known.by_version.items())
        if not registry.holds(release.model)
    ]
    if lost:
        yield (
            "look",
            f"the registry has no files of {', '.join(lost)}: a release without them cannot be "
            "promoted.",
        )


def training_runs(settings: "Settings") -> Iterator[Finding]:
    from consumers.training.history import RunHistory
    from trainer.data import lineage
    from trainer.registry.registry import Registry

    history = RunHistory(settings).refresh()
    live = history.releases.live
    orphans = lineage.without_run(history, live.version) if live else []
    for release in orphans:
        yield "missing", f"no manifest of run {release.run_id}, which made {release.version}."
    spans = ((f"run {run.run_id[:8]}", span) for run in history.runs for span in run.ranges)
    for problem in too_far(spans, ends(settings)):
        yield "missing", f"{problem} Restore all of its records at the same offsets."
    files = Registry.of(settings).training_files(settings.retriever)
    without = [run for run in history.runs if run.training_file.location not in files]
    if without:
        runs = ", ".join(run.run_id[:8] for run in without)
        yield (
            "look",
            f"the registry has no training file of {runs}: `retrail train --run` cannot repeat "
            "these.",
        )


def pairs(settings: "Settings") -> Iterator[Finding]:
    """Whether the documents of the last pairs are on ``documents``; memory is that of their ids."""
    from retrail_runtime import kafka
    from schemas.errors import InvalidRecordError
    from schemas.pairs import decode
    from schemas.topics import Topics

    names = Topics.of(settings)
    wanted, invalid = set(), 0
    for record in recent(settings, names.labelled_pairs, RECENT):
        try:
            wanted.add(decode(record.value).positive)
        except InvalidRecordError:
            invalid += 1
    without = set(wanted)
    for record in kafka.read_to_end(settings, names.documents):
        if (name := (record.key or b"").decode(errors="replace")) in wanted:
            (without.discard if record.value else without.add)(name)
    if invalid:
        yield "look", f"{counted(invalid, 'record is', 'records are')} no pair."
    if wanted and without == wanted:
        yield "missing", f"no document of the last pairs is on {names.documents}."
    elif without:
        yield (
            "look",
            f"{counted(len(without), 'document', 'documents')} of {len(wanted):,} that the last "
            "pairs name are not there. Deleted ones are expected.",
        )


def erasures(settings: "Settings") -> Iterator[Finding]:
    from retrail_runtime.erasures import ErasureLog
    from schemas.topics import Topics

    known = ErasureLog(settings).refresh().known
    yield "ok", f"{counted(len(known), 'erasure', 'erasures')}, under this key"
    own = Topics.of(settings.model_copy(update={"revision": ""}))
    spans = (
        (f"erasure {one.erasure_id[:8]}", span)
        for one in known
        for span in one.ends
        if span.topic.startswith((own.judged_events, own.labelled_pairs))
    )
    for problem in too_far(spans, ends(settings)):
        yield "look", f"{problem} Records of the same subjects below them count as erased."


def judge(settings: "Settings") -> Iterator[Finding]:
    from retrail_runtime import kafka
    from schemas.topics import Topics

    names = Topics.of(settings)
    source_id = kafka.topic_id(kafka.admin(settings), names.trajectory_events)
    committed = _committed(settings, source_id)
    found = ends(settings)
    for (partition, topic_id), last in _judged(settings).items():
        end = found.get((names.trajectory_events, partition), 0)
        if topic_id == source_id or partition in committed or not end:
            continue
        if last >= end:
            yield (
                "look",
                f"offset {last} of {names.trajectory_events}/{partition} was judged, but it ends "
                f"at {end}: it has other offsets. All of its events are judged again.",
            )
            continue
        group = settings.group("judge", revised=True)
        yield (
            "look",
            f"{last + 1} events of {names.trajectory_events}/{partition} are judged again. To go "
            f"on behind them: kafka-consumer-groups.sh --group {group} --topic "
            f"{names.trajectory_events}:{partition} --reset-offsets --to-offset {last + 1} "
            "--execute",
        )


def local_copies(settings: "Settings") -> Iterator[Finding]:
    from retrail_runtime import kafka
    from retrail_runtime.mirror import stored_topic_id

    admin, others = kafka.admin(settings), []
    existing = kafka.partition_counts(settings)
    for path in sorted(settings.data_dir.glob("*/*.sqlite")):
        stored = stored_topic_id(path)
        if stored and (path.stem not in existing or stored != kafka.topic_id(admin, path.stem)):
            others.append(str(path.relative_to(settings.data_dir)))
    if others:
        yield "look", f"{', '.join(others)} are of other topics. They are rebuilt at the start."


CHECKS: dict[str, Callable[["Settings"], Iterable[Finding]]] = {
    "Topics": topics,
    "Live release": live_release,
    "Training runs": training_runs,
    "Documents of pairs": pairs,
    "Erasures": erasures,
    "Judge": judge,
    "Local copies": local_copies,
}


def too_far(spans: Iterable[tuple[str, "Range"]], ends: Ends) -> list[str]:
    """For each partition the reader with the highest offset, if that is beyond the partition's end.

    A topic that is not among ``ends`` has the end 0.
    """
    furthest: dict[tuple[str, int], tuple[int, str]] = {}
    for who, span in spans:
        place = (span.topic, span.partition)
        furthest[place] = max(furthest.get(place, (0, "")), (span.end, who))
    return [
        f"{topic}/{partition} ends at {ends.get((topic, partition), 0)}, but {who} names offsets "
        f"up to {end}."
        for (topic, partition), (end, who) in sorted(furthest.items())
        if end > ends.get((topic, partition), 0)
    ]


def ends(settings: "Settings") -> dict[tuple[str, int], int]:
    """End offset of each partition of the installation's topics that exist, of all revisions."""
    from contextlib import closing

    from retrail_runtime import kafka

    names = kafka.partition_counts(settings)
    with closing(kafka.consumer(settings)) as reader:
        return {
            (name, partition): end
            for name in names
            if name.startswith(settings.topic_prefix) and not name.startswith("__")
            for partition, (_, end) in kafka.offsets(reader, name).items()
        }


def _judged(settings: "Settings") -> dict[tuple[int, str], int]:
    """The last offset of trajectory-events that was judged, by its partition and topic id."""
    import orjson

    from schemas.topics import Topics

    found: dict[tuple[int, str], int] = {}
    for record in recent(settings, Topics.of(settings).judged_events, RECENT):
        event = orjson.loads(record.value or b"{}")
        if "source_topic_id" in event:
            place = (event["source_partition"], event["source_topic_id"])
            found[place] = max(event["source_offset"], found.get(place, -1))
    return found


def _committed(settings: "Settings", topic_id: str) -> set[int]:
    """The partitions of trajectory-events for which the judge has an offset of this topic."""
    from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException

    from retrail_runtime import kafka

    group, admin = settings.group("judge", revised=True), kafka.admin(settings)
    asked = [ConsumerGroupTopicPartitions(group)]
    # A client that is not referenced any more never answers.
    future = admin.list_consumer_group_offsets(asked, request_timeout=30)[group]
    try:
        found = future.result()
    except KafkaException as error:
        message = f"Kafka returned no offsets of {group}: {kafka.error_message(error)}"
        raise kafka.failure(error.args[0], message) from error
    return {
        place.partition
        for place in found.topic_partitions
        if place.offset >= 0 and (place.metadata or "").partition(" ")[0] in ("", topic_id)
    }
