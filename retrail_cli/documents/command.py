"""``retrail documents``."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrail_cli.counting import counted
from retrail_cli.documents.document_format import Format

if TYPE_CHECKING:
    from retrail_cli.documents.chunking import Chunking
    from retrail_cli.documents.document_changes import OnTopic
    from retrail_cli.documents.document_sources import Source
    from retrail_runtime.kafka import Outgoing
    from schemas.documents import Document
    from schemas.settings import Settings

app = typer.Typer(
    help="The documents that are searched.", no_args_is_help=True, rich_markup_mode=None
)

SHOWN = 20
"""Complaints that are spelled out."""
CHUNK_TOKENS, CHUNK_OVERLAP = 200, 40


@app.callback()
def _group() -> None:
    """The documents that are searched."""


@app.command()
def load(
    paths: Annotated[
        list[Path],
        typer.Argument(help="JSON Lines, Parquet, BEIR folders, folders of text and Markdown."),
    ],
    format: Annotated[Format, typer.Option(help="How the documents lie there.")] = Format.auto,
    chunk_tokens: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=100_000,
            help="Cut longer documents into parts of so many tokens; 0: into none. "
            f"Default: {CHUNK_TOKENS} for text and Markdown, else 0.",
            show_default=False,
        ),
    ] = None,
    chunk_overlap: Annotated[
        int | None,
        typer.Option(
            min=0,
            help=f"Tokens that a part repeats of the one before. Default: {CHUNK_OVERLAP}, at most "
            "a quarter of a part.",
            show_default=False,
        ),
    ] = None,
    prefix: Annotated[
        str, typer.Option(help="Put before every id, where ids of several sources may be equal.")
    ] = "",
    id_field: Annotated[
        str | None,
        typer.Option(help="Default: doc_id, _id or id.", show_default=False),
    ] = None,
    title_field: Annotated[
        str | None, typer.Option(help="Default: title.", show_default=False)
    ] = None,
    text_field: Annotated[
        str | None, typer.Option(help="Default: text.", show_default=False)
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Send unchanged documents, too.")
    ] = False,
) -> None:
    """Put documents on the documents topic, from where every index is built.

    JSON Lines have a document a line, {"doc_id": …, "title": …, "text": …}; "_id" works too, a
    title may be absent. A file of text or Markdown is a document; its id is its path in the folder,
    its title the first heading. Parts of a document are documents ID#0, ID#1, …; parts that a
    shorter version has no more are deleted.

    A document with an id that is there already replaces it; one that is there as it is is not sent
    again. What is no document, or is too large, is named and left out; the rest goes on, and the
    exit status is 1.

    \b
    Examples:
      retrail documents load my-corpus.jsonl
      retrail documents load beir/scifact
      retrail documents load passages.parquet --id-field pid --text-field passage
      retrail documents load handbook/ --prefix handbook/ --chunk-tokens 150
    """
    from retrail_cli.documents.document_files import Fields
    from retrail_cli.documents.document_sources import source_of
    from retrail_runtime.kafka import require_broker
    from schemas.settings import load as load_settings
    from schemas.topics import Topics

    settings = load_settings()
    topic = Topics.of(settings).documents
    default = Fields()
    fields = Fields(
        doc_id=(id_field,) if id_field else default.doc_id,
        title=(title_field,) if title_field else default.title,
        text=(text_field,) if text_field else default.text,
    )
    sources = [source_of(path, format, fields) for path in paths]
    plan = [(source, _chunking(source, chunk_tokens, chunk_overlap)) for source in sources]
    require_broker(settings, [topic])
    there = _read_topic(settings, topic)
    loading = _Loading(there, prefix, everything)
    _send(settings, topic, loading, plan)
    names = ", ".join(source.name for source in sources)
    are_there = counted(loading.documents, f"document of {names} is", f"documents of {names} are")
    typer.echo(f"{are_there} on the topic {topic}: {loading}.", err=True)
    if loading.repeated:
        have = counted(loading.repeated, "of them has", "of them have")
        typer.echo(
            f"{have} the id of an earlier one and replaced it; --prefix keeps several sources "
            "apart.",
            err=True,
        )
    if loading.complaints.count:
        were = counted(loading.complaints.count, "document was", "documents were")
        typer.echo(f"{were} left out.", err=True)
        raise typer.Exit(1)


@app.command()
def delete(
    ids: Annotated[list[str], typer.Argument(help="Ids of documents.", show_default=False)],
    chunks: Annotated[
        bool, typer.Option("--chunks", help="Delete their parts ID#0, ID#1, …, too.")
    ] = False,
) -> None:
    """Delete documents: from the topic, and so from every index.

    An id that is not there is named; the others are deleted, and the exit status is 1.

    \b
    Examples:
      retrail documents delete d17 d18
      retrail documents delete handbook/leave.md --chunks
    """
    from retrail_runtime.kafka import producer, require_broker, send_all
    from schemas.settings import load as load_settings
    from schemas.topics import Topics

    settings = load_settings()
    topic = Topics.of(settings).documents
    require_broker(settings, [topic])
    there = _read_topic(settings, topic)
    complaints, found = Complaints(), dict[str, None]()
    for doc_id in ids:
        wanted = [doc_id] if doc_id in there else []
        wanted += there.chunks(doc_id) if chunks else []
        found.update(dict.fromkeys(wanted))
        if not wanted:
            parts = there.chunks(doc_id)
            complaints.add(
                doc_id,
                f"is no document, but {counted(len(parts), 'part is', 'parts are')}: say --chunks "
                "to delete them"
                if parts
                else "there is no such document",
            )
    sent = send_all(producer(settings), topic, ((doc_id.encode(), None) for doc_id in found))
    are_gone = counted(sent, "document is deleted", "documents are deleted")
    typer.echo(f"{are_gone} from the topic {topic}.", err=True)
    if complaints.count:
        raise typer.Exit(1)


class Complaints:
    """Names the first bad documents and counts the others."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, place: str, complaint: str) -> None:
        """One is left out."""
        self.count += 1
        if self.count <= SHOWN:
            typer.echo(f"{place}: {complaint}", err=True)
        elif self.count == SHOWN + 1:
            typer.echo("… and more like these.", err=True)


@dataclass
class _Loading:
    """What a load has done so far; ``there`` is kept as the topic will be."""

    there: "OnTopic"
    prefix: str
    everything: bool
    complaints: Complaints = field(default_factory=Complaints)
    documents: int = 0
    sent: int = 0
    unchanged: int = 0
    deleted: int = 0
    repeated: int = 0
    seen: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        said = f"{self.sent:,} sent, {self.unchanged:,} unchanged"
        return f"{said}, {self.deleted:,} deleted" if self.deleted else said

    def records(
        self, document: "Document", place: str, chunking: "Chunking | None"
    ) -> "Iterator[Outgoing]":
        """What has to be sent for one document."""
        from pydantic import ValidationError

        from retrail_cli.documents.chunking import chunks
        from retrail_runtime.kafka import Outgoing
        from schemas.events import describe
        from schemas.topics import MAX_EVENT_BYTES

        try:
            named = _renamed(document, self.prefix + document.doc_id)
            parts = [named] if chunking is None else list(chunks(named, chunking))
        except ValidationError as error:
            self.complaints.add(place, describe(error.errors(include_url=False)))
            return
        records = [Outgoing(part.doc_id.encode(), part.to_json()) for part in parts]
        if (large := next((r for r in records if r.size > MAX_EVENT_BYTES), None)) is not None:
            self.complaints.add(place, _too_large(named.doc_id, large))
            return
        self.documents += 1
        self.repeated += named.doc_id in self.seen
        self.seen.add(named.doc_id)
        for part, record in zip(parts, records, strict=True):
            assert record.value is not None
            if not self.everything and self.there.has(part.doc_id, record.value):
                self.unchanged += 1
                continue
            self.sent += 1
            self.there.put(part.doc_id, record.value)
            yield record
        if chunking is not None:
            yield from self._stale(named.doc_id, len(parts))

    def _stale(self, doc_id: str, parts: int) -> "Iterator[Outgoing]":
        """Deletions of what the document was before: more parts, or whole."""
        from retrail_runtime.kafka import Outgoing

        whole = [doc_id] if doc_id in self.there else []
        for gone in [*whole, *self.there.chunks(doc_id, parts)]:
            self.deleted += 1
            self.there.put(gone, None)
            yield Outgoing(gone.encode(), None)


def _renamed(document: "Document", doc_id: str) -> "Document":
    """The document under another id, validated."""
    from schemas.documents import Document

    return Document(doc_id=doc_id, title=document.title, text=document.text)


def _send(
    settings: "Settings",
    topic: str,
    loading: _Loading,
    plan: "Iterable[tuple[Source, Chunking | None]]",
) -> None:
    from retrail_cli.documents.document_files import BadLine
    from retrail_cli.progress import bar
    from retrail_runtime.kafka import producer, send_all

    sources = list(plan)
    with bar("loading", sum(source.count for source, _ in sources)) as advance:

        def records() -> "Iterator[Outgoing]":
            for source, chunking in sources:
                for place, found in source.documents():
                    if isinstance(found, BadLine):
                        loading.complaints.add(place, found.complaint)
                    else:
                        yield from loading.records(found, place, chunking)
                    advance(1)

        send_all(producer(settings), topic, records())


def _read_topic(settings: "Settings", topic: str) -> "OnTopic":
    from retrail_cli.documents.document_changes import OnTopic
    from retrail_cli.progress import bar
    from retrail_runtime.kafka import read_to_end

    with bar("reading what is there", None) as advance:

        def records() -> Iterator[tuple[bytes | None, bytes | None]]:
            for record in read_to_end(settings, topic):
                advance(1)
                yield record.key, record.value

        return OnTopic(records())


def _chunking(source: "Source", tokens: int | None, overlap: int | None) -> "Chunking | None":
    from retrail_cli.documents.chunking import Chunking

    size = (CHUNK_TOKENS if source.whole else 0) if tokens is None else tokens
    if size == 0:
        return None
    return Chunking(size, min(CHUNK_OVERLAP, size // 4) if overlap is None else overlap)


def _too_large(doc_id: str, record: "Outgoing") -> str:
    from schemas.topics import MAX_EVENT_BYTES

    return (
        f"document {doc_id} has {record.size:,} bytes; the topic takes {MAX_EVENT_BYTES:,}. Split "
        "it into several documents, or say --chunk-tokens"
    )
