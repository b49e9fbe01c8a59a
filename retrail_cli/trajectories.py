"""``retrail publish`` and ``retrail mine``."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from retrail_cli.output import counted
from schemas import JudgeName, ProfileName

if TYPE_CHECKING:
    from retrail_runtime.kafka import Outgoing
    from schemas.erasures import Erasures
    from schemas.settings import Settings
    from streams.importing.hits import Documents
    from streams.importing.importer import Importer
    from streams.importing.normalise import Part
    from streams.importing.report import Report

STANDARD_OUTPUT = Path("-")
SHOWN = 20
"""How many problems are printed; more are only counted."""

Paths = Annotated[
    list[Path],
    typer.Argument(
        help="JSON or JSON Lines files, optionally compressed with gzip or Zstandard; or folders, "
        "which are searched recursively for *.json, *.jsonl and *.ndjson files."
    ),
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        help="events, lrat, openai, anthropic, react, atif, otlp, or the name of an installed "
        "reader; auto: recognise each file by its content. See docs/import.md.",
    ),
]
Tools = Annotated[
    Path | None,
    typer.Option(
        "--tools",
        help="TOML file that maps tool names to searches and opens. See docs/import.md.",
        show_default=False,
    ),
]
DocumentsPath = Annotated[
    Path | None,
    typer.Option(
        "--documents",
        help="Documents, as for `retrail documents load`, to resolve the ids of hits.",
        show_default=False,
    ),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Read everything first; do nothing if a trajectory is invalid."),
]
ReportPath = Annotated[
    Path | None,
    typer.Option("--report", help="Write the report to this file, as JSON.", show_default=False),
]


def publish(
    paths: Paths,
    file_format: Format = "auto",
    tools: Tools = None,
    documents: DocumentsPath = None,
    strict: Strict = False,
    report: ReportPath = None,
) -> None:
    """Publish trajectories from files to Kafka.

    Exits when Kafka has acknowledged every event. Ids are derived from the trajectories, so
    publishing a file twice has no effect.

    \b
    Exit status: 1 if a trajectory could not be read to its end (all others are published);
    3 if the counts suggest that the files were misread.

    \b
    Examples:
      retrail publish trajectories/
      retrail publish logs/ --format openai --tools tools.toml --report report.json
    """
    from retrail_runtime.erasures import ErasureLog
    from retrail_runtime.kafka import producer, require_broker, send_all
    from schemas.settings import load
    from schemas.topics import Topics

    settings = load()
    topics = Topics.of(settings)
    require_broker(settings, [topics.trajectory_events, topics.documents, topics.erasures])
    erased = ErasureLog(settings).refresh()
    known = _on_topic(settings) if documents is None else _in_files(documents)
    importing = partial(_importing, paths, file_format, tools, known)

    def records(importer: "Importer") -> Iterator["Outgoing"]:
        for part in importer.read(paths):
            yield from _records(part, importer, erased)

    if strict:
        with importing("checking", strict=True) as importer:
            for _ in records(importer):
                pass
    with importing("publishing") as importer:
        sent = send_all(producer(settings), topics.trajectory_events, records(importer))
    typer.echo(f"{counted(sent, 'event is', 'events are')} on {topics.trajectory_events}.")
    _finish(importer.report, report)


@contextmanager
def _importing(
    paths: list[Path],
    file_format: str,
    tools: Path | None,
    documents: "Documents | None",
    doing: str,
    *,
    strict: bool = False,
) -> Iterator["Importer"]:
    """An importer with a progress bar in bytes."""
    from retrail_cli.output import bar
    from streams.importing.files import files_of
    from streams.importing.importer import Importer
    from streams.importing.tools import ToolMap

    size = sum(path.stat().st_size for path in files_of(paths))
    with bar(doing, size) as advance:
        yield Importer(file_format, ToolMap.load(tools), documents, strict, advance)


def _records(part: "Part", importer: "Importer", erased: "Erasures") -> Iterator["Outgoing"]:
    """Records of a trajectory's events, up to the first that is erased or too large."""
    from retrail_runtime.kafka import Outgoing
    from schemas.events import cloudevents, parse
    from schemas.topics import MAX_EVENT_BYTES
    from streams.events import encode

    for event in part.events:
        value = encode(event)
        published = parse(value).event
        if erased.of_import(
            published.occurred_at,
            trajectory=published.trajectory_id,
            agent=published.agent.name,
            tenant=published.tenant,
        ):
            return
        headers = cloudevents(published, published.type)
        record = Outgoing(event.trajectory_id.encode(), value, headers)
        if record.size > MAX_EVENT_BYTES:
            problem = (
                f"event {event.event_id} has {record.size:,} bytes; "
                f"the topic takes {MAX_EVENT_BYTES:,}"
            )
            importer.bad(f"trajectory {event.trajectory_id}", problem, incomplete=event.seq != 0)
            return
        yield record


def _on_topic(settings: "Settings") -> "Documents | None":
    """The documents on the topic; ``None`` if it is empty."""
    from retrail_cli.output import bar
    from retrail_runtime.kafka import read_to_end
    from schemas import documents
    from schemas.topics import Topics
    from streams.importing.hits import Documents

    found = Documents()
    with bar("reading documents") as advance:
        for record in read_to_end(settings, Topics.of(settings).documents):
            change = documents.read_change(record.key, record.value)
            if change.value is not None:
                found.put(change.value)
            elif change.key is not None:
                found.remove(change.key)
            advance()
    return found if len(found) else None


def _in_files(path: Path) -> "Documents":
    from retrail_cli.documents.sources import source_of
    from schemas.documents import Document
    from streams.importing.hits import Documents

    read = (document for _, document in source_of(path).documents())
    return Documents(document for document in read if isinstance(document, Document))


def _finish(report: "Report", path: Path | None, *, err: bool = False) -> None:
    """Print the report, write it, and exit with its status.

    Args:
        err: print the counts on standard error, too, as standard output is taken.

    Raises:
        InputError: it cannot be written.
    """
    import orjson

    from retrail_runtime.files import atomic_write
    from schemas.errors import InputError

    for line in report.lines():
        typer.echo(line, err=err)
    for place, problem in report.problems[:SHOWN]:
        typer.echo(f"{place}: {problem}", err=True)
    if report.left_out or report.incomplete:
        typer.echo(
            f"{report.left_out:,} could not be read and were left out, "
            f"{report.incomplete:,} could not be read to their end.",
            err=True,
        )
    for warning in report.warnings():
        typer.secho(f"WARNING: {warning}", fg=typer.colors.RED, bold=True, err=True)
    if path is not None:
        try:
            atomic_write(path, orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2))
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}.", path=path) from error
    if report.exit_status:
        raise typer.Exit(report.exit_status)


def mine(
    paths: Paths,
    file_format: Format = "auto",
    tools: Tools = None,
    documents: DocumentsPath = None,
    strict: Strict = False,
    report: ReportPath = None,
    judge: Annotated[
        JudgeName | None,
        typer.Option(
            help="local: a classifier on this machine, no LLM; llm: an OpenAI-compatible server; "
            "none: every browsed document is relevant.  [default: RETRAIL_JUDGE, else local]",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        ProfileName | None,
        typer.Option(
            help="reference: LRAT's published code; paper: its paper.  [default: RETRAIL_PROFILE, "
            "else reference]",
            show_default=False,
        ),
    ] = None,
    judge_url: Annotated[
        str | None, typer.Option(help="Base URL of the judging server.", show_default=False)
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="Its model.", show_default=False)] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write; -: standard output.")
    ] = STANDARD_OUTPUT,
) -> None:
    """Mine labelled pairs from files, without Kafka.

    The output is JSON Lines, in the format of labelled-pairs: the same pairs, with the same ids, as
    the workers mine from the same trajectories. The file is written when it is complete.

    \b
    Exit status: 1 if a trajectory could not be read to its end (all others are mined);
    3 if the counts suggest that the files were misread.

    \b
    Examples:
      retrail mine trajectories/ --judge none --output pairs.jsonl
      retrail mine a.json --judge llm --judge-url http://127.0.0.1:8000/v1 --judge-model qwen3
    """
    from schemas.settings import load
    from streams.importing.offline import mine as mined

    server = {"judge_url": judge_url, "judge_model": judge_model}
    chosen = {"judge": judge, "profile": profile} | server
    settings = load(**{name: value for name, value in chosen.items() if value is not None})
    known = None if documents is None else _in_files(documents)
    importing = partial(_importing, paths, file_format, tools, known)
    if strict:
        with importing("checking", strict=True) as importer:
            for _ in importer.read(paths):
                pass
    verdicts: Counter[str] = Counter()
    with _written(output) as lines, importing("mining") as importer:
        for pair in mined(importer.read(paths), settings):
            lines.write(pair.to_json() + b"\n")
            verdicts[pair.verdict] += 1
    where = "" if output == STANDARD_OUTPUT else f" → {output}"
    of = counted(importer.report.trajectories, "trajectory", "trajectories")
    typer.echo(
        f"{verdicts.total():,} pairs ({verdicts['relevant']:,} relevant, "
        f"{verdicts['irrelevant']:,} irrelevant) from {of}{where}",
        err=True,
    )
    _finish(importer.report, report, err=True)


@contextmanager
def _written(output: Path) -> Iterator[BinaryIO]:
    """A file that is replaced when everything is written; or standard output."""
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
