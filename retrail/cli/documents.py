"""``retrail documents``."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from retrail.cli.sending import Outgoing

app = typer.Typer(
    help="The documents that are searched.", no_args_is_help=True, rich_markup_mode=None
)

SHOWN = 20
"""Complaints that are spelled out."""


@app.callback()
def _group() -> None:
    """The documents that are searched."""


@app.command()
def load(
    path: Annotated[Path, typer.Argument(help="A JSON Lines file, or a folder in BEIR layout.")],
) -> None:
    """Put documents on the documents topic, from where every index is built.

    A line is {"doc_id": …, "title": …, "text": …}; "_id" works too, "title" may be absent. A
    document with an id that is there already replaces it. A line that is no document, or one that
    is too large, is named and left out; the rest goes on, and the exit status is 1.

    \b
    Examples:
      retrail documents load my-corpus.jsonl
      retrail documents load beir/scifact
    """
    from consumers.kafka import require_broker
    from retrail.cli.document_files import file_of
    from retrail.cli.progress import bar
    from retrail.cli.sending import send_all
    from schemas.settings import load as load_settings
    from schemas.topics import Topics

    settings = load_settings()
    file = file_of(path)
    topic = Topics.of(settings).documents
    require_broker(settings, [topic])
    complaints = _Complaints()
    with bar("reading", None) as advance:
        total = 0
        for _ in _records(file, complaints):
            total += 1
            advance(1)
    with bar("loading", total) as advance:
        sent = send_all(settings, topic, _records(file, _Complaints(silent=True)), on_sent=advance)
    typer.echo(f"{sent:,} documents of {file} are on {topic}.", err=True)
    if complaints.count:
        typer.echo(f"{complaints.count:,} lines were left out.", err=True)
        raise typer.Exit(1)


class _Complaints:
    """Names the first bad lines and counts the others."""

    def __init__(self, *, silent: bool = False) -> None:
        self.count = 0
        self._silent = silent

    def add(self, place: str, complaint: str) -> None:
        self.count += 1
        if self._silent:
            return
        if self.count <= SHOWN:
            typer.echo(f"{place}: {complaint}", err=True)
        elif self.count == SHOWN + 1:
            typer.echo("… and more like these.", err=True)


def _records(file: Path, complaints: _Complaints) -> Iterator["Outgoing"]:
    from retrail.cli.document_files import BadLine, documents_of
    from retrail.cli.sending import Outgoing
    from schemas.topics import MAX_EVENT_BYTES

    for place, found in documents_of(file):
        if isinstance(found, BadLine):
            complaints.add(place, found.complaint)
            continue
        record = Outgoing(found.doc_id.encode(), found.to_json())
        if not record.fits:
            complaints.add(
                place,
                f"document {found.doc_id} has {record.size:,} bytes; the topic takes "
                f"{MAX_EVENT_BYTES:,}. Split it into several documents",
            )
            continue
        yield record
