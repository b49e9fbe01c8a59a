"""``retrail documents``."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrail_cli.output import bar, counted
from schemas import DocumentFormat

if TYPE_CHECKING:
    from retrail_cli.documents.loading import Chunking, OnTopic
    from retrail_cli.documents.sources import Source
    from retrail_runtime.kafka import Outgoing
    from schemas.settings import Settings

app = typer.Typer(
    help="The documents that are searched.", no_args_is_help=True, rich_markup_mode=None
)

CHUNK_TOKENS, CHUNK_OVERLAP = 200, 40


@app.command()
def load(
    paths: Annotated[
        list[Path],
        typer.Argument(help="JSON Lines, Parquet, BEIR folders, folders of text and Markdown."),
    ],
    format: Annotated[
        DocumentFormat, typer.Option(help="Format of the files; auto: by their names.")
    ] = "auto",
    chunk_tokens: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=100_000,
            help="Cut longer documents into chunks of so many tokens; 0: do not cut. "
            f"Default: {CHUNK_TOKENS} for text and Markdown, else 0.",
            show_default=False,
        ),
    ] = None,
    chunk_overlap: Annotated[
        int | None,
        typer.Option(
            min=0,
            help=f"Tokens that a chunk repeats of the one before. Default: {CHUNK_OVERLAP}, at "
            "most a quarter of a chunk.",
            show_default=False,
        ),
    ] = None,
    prefix: Annotated[
        str, typer.Option(help="Put before every id, to keep ids of several sources apart.")
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
    url_field: Annotated[str | None, typer.Option(help="Default: url.", show_default=False)] = None,
    tenant: Annotated[
        str | None,
        typer.Option(
            help="Whose documents these are, where they name no tenant: callers that are limited "
            "to another tenant do not see them.",
            show_default=False,
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Send unchanged documents, too.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Exit once searches find what was loaded.")
    ] = False,
) -> None:
    """Put documents on the documents topic, from where every index is built.

    JSON Lines hold a document a line, {"doc_id": …, "title": …, "text": …, "url": …, "tenant": …};
    "_id" works too; title, url and tenant are optional. A file of text or Markdown is a document;
    its id is its path in the folder, its title the first heading. Chunks of a document are
    documents ID#0, ID#1, …; chunks that a shorter version no longer has are deleted.

    A document replaces the one with its id; an unchanged one is not sent again. A line that is no
    document, or too large, is named and left out; the rest is loaded, and the exit status is 1.

    \b
    Examples:
      retrail documents load my-corpus.jsonl
      retrail documents load beir/scifact
      retrail documents load passages.parquet --id-field pid --text-field passage
      retrail documents load handbook/ --prefix handbook/ --chunk-tokens 150
      retrail documents load contracts/ --tenant acme
    """
    from retrail_cli.documents.loading import Load
    from retrail_cli.documents.sources import source_of
    from retrail_runtime import kafka
    from retrail_runtime.corpus_files import Fields, LeftOut
    from schemas.errors import InputError, InvalidRecordError
    from schemas.settings import load as load_settings

    settings = load_settings()
    fields = Fields.of(id_field, title_field, text_field, url_field)
    sources = [source_of(path, format, fields) for path in paths]
    plan = [(source, _chunking(source, chunk_tokens, chunk_overlap)) for source in sources]
    topic, there = read_topic(settings)
    todo, left_out = Load(there, prefix, everything, tenant), LeftOut()

    with bar("loading", sum(source.count for source in sources)) as advance:

        def records() -> Iterator["Outgoing"]:
            for source, chunking in plan:
                for place, found in source.documents():
                    advance(1)
                    try:
                        if isinstance(found, InvalidRecordError):
                            raise found
                        yield from todo.records(found, chunking)
                    except InvalidRecordError as problem:
                        left_out.add(place, problem)

        try:
            kafka.send_all(kafka.producer(settings), topic, records())
        finally:
            messages = list(left_out.messages())
            for message in messages:
                typer.echo(message, err=True)
    names = ", ".join(source.name for source in sources)
    are_there = counted(todo.loaded, f"document of {names} is", f"documents of {names} are")
    typer.echo(f"{are_there} on the topic {topic}{todo}.")
    if ignored := sum(source.ignored for source in sources):
        typer.echo(f"Not read, by their names: {counted(ignored, 'file', 'files')}.", err=True)
    if todo.repeated:
        have = counted(todo.repeated, "of them has", "of them have")
        typer.echo(
            f"{have} the id of an earlier one and replaced it; --prefix keeps several sources "
            "apart.",
            err=True,
        )
    if left_out.count:
        were = counted(left_out.count, "document was", "documents were")
        typer.echo(f"{were} left out.", err=True)
        if not todo.loaded and any(": has no " in message for message in messages):
            typer.echo(
                "Name the fields of your files with --id-field, --title-field and --text-field.",
                err=True,
            )
    elif not todo.loaded:
        raise InputError(f"There is no document in {names}.")
    if wait:
        _await_index(settings)
    if left_out.count:
        raise typer.Exit(1)


@app.command()
def delete(
    ids: Annotated[list[str], typer.Argument(help="Ids of documents.", show_default=False)],
    chunks: Annotated[
        bool, typer.Option("--chunks", help="Delete their chunks ID#0, ID#1, …, too.")
    ] = False,
) -> None:
    """Delete documents: from the topic, and so from every index.

    Unknown ids are named; the others are deleted, and the exit status is 1.

    \b
    Examples:
      retrail documents delete d17 d18
      retrail documents delete handbook/leave.md --chunks
    """
    from retrail_runtime import kafka
    from schemas.documents import encode_deletion
    from schemas.settings import load as load_settings

    settings = load_settings()
    topic, there = read_topic(settings)
    unknown, found = 0, dict[str, None]()
    for doc_id in ids:
        parts = there.chunks(doc_id)
        wanted = [doc_id] if doc_id in there else []
        wanted += parts if chunks else []
        found.update(dict.fromkeys(wanted))
        if not wanted:
            unknown += 1
            chunks_of = counted(len(parts), "chunk exists", "chunks exist")
            problem = (
                f"only its {chunks_of}; add --chunks" if parts else "there is no such document"
            )
            typer.echo(f"{doc_id}: {problem}", err=True)
    sent = kafka.send_all(kafka.producer(settings), topic, map(encode_deletion, found))
    are_gone = counted(sent, "document is deleted", "documents are deleted")
    typer.echo(f"{are_gone} from the topic {topic}.")
    if unknown:
        raise typer.Exit(1)


def _await_index(settings: "Settings") -> None:
    from consumers.indexing.releases import await_documents

    with bar("indexing") as advance:
        lefts: list[int] = []

        def progress(left: int) -> None:
            advance(lefts[-1] - left if lefts else 0, None, None if lefts else left)
            lefts.append(left)

        await_documents(settings, progress)
    typer.echo("Searches find them.")


def read_topic(settings: "Settings") -> tuple[str, "OnTopic"]:
    """The documents topic, and what is on it."""
    from retrail_cli.documents.loading import OnTopic
    from retrail_runtime.kafka import read_to_end, require_broker
    from schemas.topics import Topics

    topic = Topics.of(settings).documents
    require_broker(settings, [topic])
    with bar("reading what is there") as advance:

        def records() -> Iterator[tuple[bytes | None, bytes | None]]:
            for record in read_to_end(settings, topic):
                advance(1)
                yield record.key, record.value

        return topic, OnTopic(records())


def _chunking(source: "Source", tokens: int | None, overlap: int | None) -> "Chunking | None":
    from retrail_cli.documents.loading import Chunking

    size = (CHUNK_TOKENS if source.whole else 0) if tokens is None else tokens
    if size == 0:
        return None
    return Chunking(size, min(CHUNK_OVERLAP, size // 4) if overlap is None else overlap)
