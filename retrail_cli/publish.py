"""``retrail publish``."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrail_cli.output import counted
from schemas.choices import FileFormat

if TYPE_CHECKING:
    from retrail_runtime.kafka import Outgoing


PATHS = typer.Argument(help="Files, or folders of *.json (lrat) or *.jsonl (events).")
FORMAT = typer.Option(
    "--format",
    help="lrat: one trajectory a file, as the LRAT project stores them; events: one event a line, "
    "as on the topic.",
)


def publish(
    paths: Annotated[list[Path], PATHS],
    file_format: Annotated[FileFormat, FORMAT] = "lrat",
) -> None:
    """Publish trajectories in files.

    All files are read before the first event is sent, and the command ends when Kafka has
    acknowledged every event. Ids come from the files, so publishing a file twice changes nothing.

    \b
    Examples:
      retrail publish trajectories/ --format lrat
      retrail publish monday.jsonl tuesday.jsonl --format events
    """
    from retrail_cli.output import bar
    from retrail_runtime.kafka import producer, require_broker, send_all
    from schemas.settings import load
    from schemas.topics import Topics
    from streams.importing.offline import files_of

    settings = load()
    files = files_of(paths, file_format)
    with bar("reading", len(files)) as advance:
        total = 0
        for path in files:
            total += sum(1 for _ in _records(path, file_format))
            advance(1)
    topic = Topics.of(settings).trajectory_events
    require_broker(settings, [topic])
    with bar("publishing", total) as advance:
        records = (record for path in files for record in _records(path, file_format))
        send_all(producer(settings), topic, records, on_delivery=lambda _: advance())
    of = counted(len(files), "file", "files")
    typer.echo(
        f"{counted(total, f'event of {of} is', f'events of {of} are')} on {topic}.", err=True
    )


def _records(path: Path, file_format: FileFormat) -> Iterator["Outgoing"]:
    from retrail_runtime.kafka import Outgoing
    from schemas.errors import InputError
    from schemas.headers import cloudevents
    from schemas.topics import MAX_EVENT_BYTES
    from streams.importing.offline import events_of

    for event in events_of(path, file_format):
        record = Outgoing(
            event.trajectory_id.encode(), event.to_json(), cloudevents(event, event.type)
        )
        if record.size > MAX_EVENT_BYTES:
            raise InputError(
                f"{path}: the {event.type} event {event.seq} of trajectory {event.trajectory_id} "
                f"has {record.size:,} bytes; the topic takes {MAX_EVENT_BYTES:,}."
            )
        yield record
