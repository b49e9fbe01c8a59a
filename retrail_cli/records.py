"""``retrail pairs`` and ``retrail dlq``: what is on the topics of pairs and dead letters."""

import sys
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import astuple
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from retrail_cli.output import counted, print_table

if TYPE_CHECKING:
    from retrail_runtime.kafka import Record
    from schemas.base import DeadLetter
    from schemas.erasures import Erasures
    from schemas.pairs import LabelledPair
    from schemas.settings import Settings


def pairs(
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON object per line.")] = False,
    repeats: Annotated[
        bool, typer.Option(help="Include later records with the pair_id of an earlier one.")
    ] = False,
    limit: Annotated[int, typer.Option(min=0, help="How many to show, newest last.")] = 20,
    agent: Annotated[
        str | None, typer.Option(help="Only pairs of this agent or model.", show_default=False)
    ] = None,
    trajectory: Annotated[
        str | None, typer.Option(help="Only pairs of this trajectory.", show_default=False)
    ] = None,
) -> None:
    """Show the pairs mined so far.

    Reads labelled-pairs to its present end and exits. Pairs about documents that are not loaded
    are marked: they do not train. --jsonl prints all pairs, without --limit.

    \b
    Examples:
      retrail pairs --agent my-agent
      retrail pairs --jsonl > pairs.jsonl
    """
    from retrail_cli.documents.command import read_topic
    from schemas.settings import load
    from schemas.topics import Topics

    settings = load()
    verdicts: Counter[str] = Counter()
    positives: Counter[str] = Counter()
    newest: deque[LabelledPair] = deque(maxlen=limit)
    for record, pair in pairs_on_topic(settings, repeats=repeats):
        if agent not in (None, pair.agent.name, pair.agent.model):
            continue
        if trajectory not in (None, pair.trajectory_id):
            continue
        verdicts[pair.verdict] += 1
        positives[pair.positive] += 1
        newest.append(pair)
        if jsonl:
            sys.stdout.buffer.write((record.value or b"") + b"\n")
    if jsonl:
        sys.stdout.buffer.flush()
        return
    known = read_topic(settings)[1] if positives else ()
    for pair in newest:
        unknown = "" if pair.positive in known else " (not loaded)"
        tokens = "" if pair.reasoning_tokens is None else f", {pair.reasoning_tokens} tokens"
        typer.secho(pair.query, bold=True)
        typer.echo(
            f"  {pair.verdict} {pair.positive}{unknown}\n  rank {pair.rank}, "
            f"{counted(len(pair.negatives), 'negative', 'negatives')} ({pair.rejected} rejected)"
            f"{tokens}, agent {pair.agent.name} {pair.agent.model}"
        )
    typer.echo(
        f"{counted(verdicts.total(), 'pair', 'pairs')} on {Topics.of(settings).labelled_pairs}: "
        f"{verdicts['relevant']:,} relevant, {verdicts['irrelevant']:,} irrelevant."
    )
    if unknown_pairs := sum(n for doc_id, n in positives.items() if doc_id not in known):
        are = counted(unknown_pairs, "of them is", "of them are")
        typer.echo(f"{are} about documents that are not loaded: `retrail documents load`.")


def pairs_on_topic(
    settings: "Settings", *, repeats: bool = False
) -> Iterator[tuple["Record", "LabelledPair"]]:
    """The records of labelled-pairs up to its present end; of each id the first one.

    A record that is no pair is named on standard error.
    """
    from retrail_runtime.erasures import ErasureLog
    from retrail_runtime.kafka import read_to_end, require_broker
    from schemas import pairs
    from schemas.errors import InvalidRecordError
    from schemas.topics import Topics

    topic = Topics.of(settings).labelled_pairs
    require_broker(settings, [topic, Topics.of(settings).erasures])
    erased, seen = ErasureLog(settings).refresh(), set[str]()
    for record in read_to_end(settings, topic):
        try:
            pair = pairs.decode(record.value)
        except InvalidRecordError as error:
            place = f"{topic} {record.partition}:{record.offset}"
            typer.echo(f"{place} is not a pair and was skipped: {error}", err=True)
            continue
        if erased.of_pair(pair, topic, (record.partition, record.offset), record.partition):
            continue
        if repeats or pair.pair_id not in seen:
            seen.add(pair.pair_id)
            yield record, pair


def recent(settings: "Settings", topic: str, most: int) -> Iterator["Record"]:
    """The last records of each partition of a topic, at most ``most`` of each."""
    from contextlib import closing

    from retrail_runtime.kafka import consumer, offsets, read_to_end

    with closing(consumer(settings)) as reader:
        ends = {partition: end for partition, (_, end) in offsets(reader, topic).items()}
    start = {partition: end - most for partition, end in ends.items()}
    return read_to_end(settings, topic, start, ends)


dlq = typer.Typer(
    help="Dead letters: records that could not be read, with their original bytes.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Queue = Literal["events", "documents"]
QueueOption = Annotated[
    Queue, typer.Option("--of", help="events: of trajectory-events; documents: of documents.")
]
ReasonOption = Annotated[
    str | None, typer.Option("--reason", help="Only those with this reason.", show_default=False)
]


@dlq.command("list")
def list_letters(
    queue: QueueOption = "events",
    reason: ReasonOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show, newest last.")] = 50,
) -> None:
    """List dead letters, and count them by reason.

    \b
    Examples:
      retrail dlq list
      retrail dlq list --of documents --reason invalid_document
    """
    from schemas.settings import load

    reasons: Counter[str] = Counter()
    newest: deque[tuple[Record, DeadLetter]] = deque(maxlen=limit)
    for record, letter in _letters(load(), queue):
        if reason is None or letter.reason == reason:
            reasons[letter.reason] += 1
            newest.append((record, letter))
    if not newest:
        typer.echo("There are no dead letters.")
        return
    rows = (
        (
            _place(record),
            f"{letter.topic} {letter.partition}:{letter.offset}",
            letter.stage,
            letter.reason,
            f"{len(record.value or b''):,}",
            letter.message,
        )
        for record, letter in newest
    )
    print_table(("place", "from", "stage", "reason", "bytes", "message"), rows)
    typer.echo(", ".join(f"{count:,} {name}" for name, count in reasons.most_common()))


@dlq.command()
def show(
    place: Annotated[str, typer.Argument(help="PARTITION:OFFSET, as `retrail dlq list` shows it.")],
    queue: QueueOption = "events",
) -> None:
    """Print one dead letter: headers on standard error, the original bytes on standard output.

    \b
    Example:
      retrail dlq show 2:17 > broken.json
    """
    from schemas.errors import InputError
    from schemas.settings import load

    for record, _ in _letters(load(), queue):
        if _place(record) == place:
            for name, value in record.headers:
                typer.echo(f"{name}: {value.decode('utf-8', 'backslashreplace')}", err=True)
            typer.echo(f"key: {(record.key or b'').decode('utf-8', 'backslashreplace')}", err=True)
            sys.stdout.buffer.write(record.value or b"")
            if sys.stdout.isatty():
                sys.stdout.buffer.write(b"\n")
            sys.stdout.buffer.flush()
            return
    raise InputError(f"There is no dead letter {place}; see `retrail dlq list`.")


@dlq.command()
def replay(
    places: Annotated[
        list[str] | None, typer.Argument(help="PARTITION:OFFSET of each.", show_default=False)
    ] = None,
    queue: QueueOption = "events",
    reason: ReasonOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
) -> None:
    """Send dead letters back to their topic, unchanged.

    Use this after an upgrade of the judge or of the index worker. Records that are still invalid
    return to the dead letter queue; fix them first (`retrail dlq show 2:17 > event.json`) and
    publish the result (`retrail publish event.json --format events`, or `retrail documents load`).

    Dead letters stay in the queue. A replayed event is appended to the topic. The miner uses it if
    its trajectory is open, or if it opens one (seq 0). To use events of closed trajectories, start
    a new revision (RETRAIL_REVISION) whose RETRAIL_MINE_GAP_SECONDS, _IDLE_SECONDS and
    _MAX_AGE_SECONDS cover the time from the trajectory to the replay.

    \b
    Examples:
      retrail dlq replay 2:17 0:3
      retrail dlq replay --reason unsupported_version
    """
    from retrail_runtime import audit
    from retrail_runtime.erasures import ErasureLog
    from retrail_runtime.kafka import Outgoing, producer, send_all
    from schemas.base import original_headers
    from schemas.errors import InputError
    from schemas.settings import load
    from schemas.topics import Topics

    wanted = set(places or [])
    if bool(wanted) + bool(reason) + everything != 1:
        raise InputError("Name dead letters as PARTITION:OFFSET, or give --reason R, or --all.")
    settings = load()
    if wanted and (absent := wanted - {_place(record) for record, _ in _letters(settings, queue)}):
        raise InputError(f"There are no dead letters {', '.join(sorted(absent))}.")
    without_value = []
    erased, left_out = ErasureLog(settings).refresh(), 0

    def chosen() -> Iterator[Outgoing]:
        nonlocal left_out
        for record, letter in _letters(settings, queue):
            if not (everything or _place(record) in wanted or letter.reason == reason):
                continue
            if _is_erased(erased, record, letter):
                left_out += 1
            elif record.value:
                headers = original_headers(record.headers)
                yield Outgoing(record.key, record.value, headers)
            else:
                without_value.append(f"{letter.topic} {letter.partition}:{letter.offset}")

    topics = Topics.of(settings)
    topic = topics.trajectory_events if queue == "events" else topics.documents
    sent = send_all(producer(settings), topic, chosen())
    which = {"places": sorted(wanted)} if wanted else {"reason": reason}
    audit.write(settings, "dlq replay", topic=topic, records=sent, **which)
    were = counted(sent, "record was", "records were")
    typer.echo(f"{were} sent back to {topic}.")
    if left_out:
        typer.echo(f"Not sent, because they are erased: {left_out:,}.", err=True)
    if without_value:
        typer.echo(
            f"Not sent, because their values were not kept: {', '.join(without_value)}.", err=True
        )


@dlq.command()
def skip(
    topic: Annotated[str, typer.Argument(help="The topic in the error.")],
    partition: Annotated[int, typer.Argument(min=0, help="Its partition.")],
    offset: Annotated[int, typer.Argument(min=0, help="First offset that cannot be decoded.")],
) -> None:
    """Skip a batch that cannot be decoded, and record that.

    A worker or command stops at a batch with a wrong checksum or an unknown format; its error names
    topic, partition and offset. Restore the partition from a replica or a copy if you can.
    Otherwise this command writes a dead letter with reason "skipped", and whatever cannot decode
    the batch at that offset continues after it when it is restarted. The records of the batch are
    lost. A record that can be decoded is never skipped.

    \b
    Example:
      retrail dlq skip trajectory-events 2 1207
    """
    from retrail_runtime import audit
    from retrail_runtime.kafka import producer, publish_and_wait, require_broker
    from schemas.base import SKIPPED, DeadLetter
    from schemas.errors import InputError
    from schemas.settings import load
    from schemas.topics import Topics

    settings = load()
    topics = Topics.of(settings)
    if topic not in (names := astuple(topics)):
        raise InputError(f"There is no topic {topic}. Topics: {', '.join(names)}.")
    count = require_broker(settings, [topic, topics.trajectory_events_dlq])[topic]
    if partition >= count:
        raise InputError(f"{topic} has partitions 0 to {count - 1}.")
    message = "skipped with `retrail dlq skip`"
    letter = DeadLetter(topic, partition, offset, "operator", SKIPPED, message=message)
    publish_and_wait(
        producer(settings), topics.trajectory_events_dlq, value=b"", headers=letter.headers()
    )
    audit.write(settings, "dlq skip", topic=topic, partition=partition, offset=offset)
    typer.echo(f"Workers that cannot decode {topic} {partition}:{offset} skip its batch.")


def _letters(settings: "Settings", queue: Queue) -> Iterator[tuple["Record", "DeadLetter"]]:
    from retrail_runtime.kafka import read_to_end, require_broker
    from schemas.base import DeadLetter
    from schemas.topics import Topics

    topics = Topics.of(settings)
    topic = topics.trajectory_events_dlq if queue == "events" else topics.documents_dlq
    require_broker(settings, [topic])
    for record in read_to_end(settings, topic):
        yield record, DeadLetter.read(record.headers)


def _is_erased(erased: "Erasures", record: "Record", letter: "DeadLetter") -> bool:
    """Whether a dead letter is of an erased subject, as far as its bytes can be read."""
    import orjson

    subjects = {"trajectory": (record.key or b"").decode(errors="replace")}
    try:
        event = orjson.loads(record.value or b"")
        subjects |= {"agent": str(event["agent"]["name"]), "tenant": str(event["tenant"])}
    except (orjson.JSONDecodeError, TypeError, KeyError):
        pass
    place = letter.topic, letter.partition, letter.offset
    return erased.covering([place], **subjects) is not None


def _place(record: "Record") -> str:
    return f"{record.partition}:{record.offset}"
