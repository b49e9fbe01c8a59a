"""``retrail dlq``."""

import sys
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import astuple
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from retrail_cli.output import print_table

if TYPE_CHECKING:
    from retrail_runtime.kafka import Record
    from schemas.base import DeadLetter
    from schemas.settings import Settings

app = typer.Typer(
    help="Dead letters, as they came: records that could not be read.",
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


@app.command("list")
def list_letters(
    queue: QueueOption = "events",
    reason: ReasonOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show, newest last.")] = 50,
) -> None:
    """Show dead letters, and how many there are of each reason.

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


@app.command()
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
            sys.stdout.buffer.flush()
            return
    raise InputError(f"There is no dead letter {place}. `retrail dlq list` shows which there are.")


@app.command()
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

    Dead letters stay in the queue. A replayed event is appended to the topic: it counts while its
    trajectory is open, or if it is the seq 0 that opens one. An event of a closed trajectory counts
    only in a new revision (RETRAIL_REVISION) whose miner waits long enough:
    RETRAIL_MINE_GAP_SECONDS, _IDLE_SECONDS and _MAX_AGE_SECONDS must cover the time from the
    trajectory to the replay.

    \b
    Examples:
      retrail dlq replay 2:17 0:3
      retrail dlq replay --reason unsupported_version
    """
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
    bodiless = []

    def chosen() -> Iterator[Outgoing]:
        for record, letter in _letters(settings, queue):
            if not (everything or _place(record) in wanted or letter.reason == reason):
                continue
            if record.value:
                headers = original_headers(record.headers)
                yield Outgoing(record.key, record.value, headers)
            else:
                bodiless.append(f"{letter.topic} {letter.partition}:{letter.offset}")

    topics = Topics.of(settings)
    topic = topics.trajectory_events if queue == "events" else topics.documents
    sent = send_all(producer(settings), topic, chosen())
    typer.echo(f"{sent:,} records were sent back to {topic}.")
    if bodiless:
        typer.echo(
            f"Dead-lettered without their value, and not sent: {', '.join(bodiless)}.", err=True
        )


@app.command()
def skip(
    topic: Annotated[str, typer.Argument(help="As the worker's error names it.")],
    partition: Annotated[int, typer.Argument(min=0, help="Of that topic.")],
    offset: Annotated[int, typer.Argument(min=0, help="First offset that cannot be decoded.")],
) -> None:
    """Pass over a batch that cannot be decoded, and put that on record.

    A worker or command stops at a batch with a wrong checksum or an unknown format; its error names
    topic, partition and offset. Restore the partition from a replica or a copy if you can.
    Otherwise this command writes a dead letter with reason "skipped", and whatever cannot decode
    the batch at that offset passes over it when it is started again. The records of the batch are
    lost. A record that can be decoded is never passed over.

    \b
    Example:
      retrail dlq skip trajectory-events 2 1207
    """
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
    message = "passed over with `retrail dlq skip`"
    letter = DeadLetter(topic, partition, offset, "operator", SKIPPED, message=message)
    publish_and_wait(
        producer(settings), topics.trajectory_events_dlq, value=b"", headers=letter.headers()
    )
    typer.echo(f"Workers that cannot decode {topic} {partition}:{offset} pass over its batch.")


def _letters(settings: "Settings", queue: Queue) -> Iterator[tuple["Record", "DeadLetter"]]:
    from retrail_runtime.kafka import read_to_end, require_broker
    from schemas.base import DeadLetter
    from schemas.topics import Topics

    topics = Topics.of(settings)
    topic = topics.trajectory_events_dlq if queue == "events" else topics.documents_dlq
    require_broker(settings, [topic])
    for record in read_to_end(settings, topic):
        yield record, DeadLetter.read(record.headers)


def _place(record: "Record") -> str:
    return f"{record.partition}:{record.offset}"
