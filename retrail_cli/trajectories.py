"""``retrail publish`` and ``retrail mine``."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from retrail_cli.output import counted
from schemas.choices import FileFormat, JudgeName, ProfileName

if TYPE_CHECKING:
    from retrail_runtime.kafka import Outgoing


STANDARD_OUTPUT = Path("-")

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
    from schemas.events import cloudevents
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


def mine(
    paths: Annotated[list[Path], PATHS],
    file_format: Annotated[FileFormat, FORMAT] = "lrat",
    judge: Annotated[
        JudgeName | None,
        typer.Option(
            help="local: a classifier on this machine, no LLM; llm: an OpenAI-compatible "
            "server; none: every browsed document counts as relevant.  [default: RETRAIL_JUDGE, "
            "else local]",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        ProfileName | None,
        typer.Option(
            help="reference: what the published code of LRAT does; paper: what its paper says.  "
            "[default: RETRAIL_PROFILE, else reference]",
            show_default=False,
        ),
    ] = None,
    judge_url: Annotated[
        str | None, typer.Option(help="Base URL of the judging server.", show_default=False)
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="Its model.", show_default=False)] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A file, or - for standard output.")
    ] = STANDARD_OUTPUT,
) -> None:
    """Mine labelled pairs from files.

    No broker is needed. Every line of the output is a pair as on labelled-pairs: the same pairs,
    with the same ids, as the workers make of the same trajectories. The file appears when it is
    complete.

    \b
    Examples:
      retrail mine trajectories/ --format lrat --judge none --output pairs.jsonl
      retrail mine a.json --judge llm --judge-url http://127.0.0.1:8000/v1 --judge-model qwen3
    """
    from retrail_cli.output import bar
    from schemas.settings import load
    from streams.importing.offline import files_of, mine_paths

    chosen = {
        "judge": judge,
        "profile": profile,
        "judge_url": judge_url,
        "judge_model": judge_model,
    }
    settings = load(**{name: value for name, value in chosen.items() if value is not None})
    files = files_of(paths, file_format)
    verdicts: Counter[str] = Counter()
    with _written(output) as lines, bar("mining", len(files)) as advance:
        for pair in mine_paths(files, file_format, settings, on_file=lambda path: advance(1)):
            lines.write(pair.to_json() + b"\n")
            verdicts[pair.verdict] += 1
    where = "" if output == STANDARD_OUTPUT else f" → {output}"
    typer.echo(
        f"{verdicts.total():,} pairs ({verdicts['relevant']:,} relevant, "
        f"{verdicts['irrelevant']:,} irrelevant) from {len(files):,} files{where}",
        err=True,
    )


@contextmanager
def _written(output: Path) -> Iterator[BinaryIO]:
    """A file that is replaced once all is written; or standard output."""
    from retrail_runtime.files import atomic_file
    from schemas.errors import InputError

    if output == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with atomic_file(output) as file:
            yield file
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}.") from error
