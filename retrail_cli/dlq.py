"""``retrail dlq``."""

import sys
from collections import Counter, deque
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from retrail_runtime.kafka import Record
    from schemas.headers import DeadLetter
    from schemas.settings import Settings

app = typer.Typer(
    help="Show and replay dead letters.\n\n"
    "These are records that could not be read, set aside as they came.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

HEADER_PREFIX = "retrail_dlq_"


class Queue(StrEnum):
    """Which topic the dead letters were on."""

    events = "events"
    documents = "documents"


QueueOption = Annotated[
    Queue, typer.Option("--of", help="events: of trajectory-events; documents: of documents.")
]
ReasonOption = Annotated[
    str | None, typer.Option("--reason", help="Only those with this reason.", show_default=False)
]


@app.command("list")
def list_letters(
    queue: QueueOption = Queue.events,
    reason: ReasonOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show, newest last.")] = 50,
) -> None:
    """Show dead letters, and how many there are of each reason.

    \b
    Examples:
      retrail dlq list
      retrail dlq list --of documents --reason invalid_document
    """
    from rich.console import Console
    from rich.table import Table

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
    table = Table("place", "from", "stage", "reason", "bytes", "message")
    for record, letter in newest:
        table.add_row(
            _place(record),
            f"{letter.topic} {letter.partition}:{letter.offset}",
            letter.stage,
            letter.reason,
            f"{len(record.value or b''):,}",
            letter.message,
        )
    Console().print(table)
    typer.echo(", ".join(f"{count:,} {name}" for name, count in reasons.most_common()))


@app.command()
def show(
    place: Annotated[str, typer.Argument(help="PARTITION:OFFSET, as `retrail dlq list` shows it.")],
    queue: QueueOption = Queue.events,
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
    queue: QueueOption = Queue.events,
    reason: ReasonOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
) -> None:
    """Send dead letters back to their topic, as they came: what was set aside can be read now.

    That helps where their reader has learned to read them. What is wrong itself is set aside again:
    mend it (`retrail dlq show 2:17 > event.json`), and publish that (`retrail publish event.json
    --format events`, or `retrail documents load`).

    They stay in the queue. A replayed event is a new record at the end of the topic: it counts if
    its trajectory is still open, or if it is the seq 0 that opens it. One that stands behind its
    trajectory's close counts only in a new revision (RETRAIL_REVISION), and only if that waits for
    it: RETRAIL_MINE_GAP_SECONDS, _IDLE_SECONDS and _MAX_AGE_SECONDS of its miner must reach from
    the trajectory to the replay.

    \b
    Examples:
      retrail dlq replay 2:17 0:3
      retrail dlq replay --reason unsupported_version
    """
    from retrail_runtime.kafka import Outgoing, producer, send_all
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
                yield Outgoing(record.key, record.value, _original_headers(record))
            else:
                bodiless.append(f"{letter.topic} {letter.partition}:{letter.offset}")

    topics = Topics.of(settings)
    topic = topics.trajectory_events if queue is Queue.events else topics.documents
    sent = send_all(producer(settings), topic, chosen())
    typer.echo(f"{sent:,} records were sent back to {topic}.")
    if bodiless:
        typer.echo(f"Set aside without their bytes, and not sent: {', '.join(bodiless)}.", err=True)


def _letters(settings: "Settings", queue: Queue) -> Iterator[tuple["Record", "DeadLetter"]]:
    from retrail_runtime.kafka import read_to_end, require_broker
    from schemas.headers import DeadLetter
    from schemas.topics import Topics

    topics = Topics.of(settings)
    topic = topics.trajectory_events_dlq if queue is Queue.events else topics.documents_dlq
    require_broker(settings, [topic])
    for record in read_to_end(settings, topic):
        yield record, DeadLetter.read(record.headers)


def _place(record: "Record") -> str:
    return f"{record.partition}:{record.offset}"


def _original_headers(record: "Record") -> list[tuple[str, bytes]]:
    return [(name, value) for name, value in record.headers if not name.startswith(HEADER_PREFIX)]
