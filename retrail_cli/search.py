"""``retrail search``."""

import json
from typing import Annotated

import typer

from retrail_cli.output import counted

SNIPPET = 200


def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many hits.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="The hits as one JSON object.")] = False,
) -> None:
    """Search the live index, as agents do.

    \b
    Examples:
      retrail search "how do I open a gzip file" -k 5
      retrail search "gzip" --json | jq '.hits[].doc_id'
    """
    from schemas.settings import load
    from serving.search.retriever import Retriever

    with Retriever(load()) as retriever:
        result = retriever.search(query, k)
    if as_json:
        hits = [
            {"doc_id": h.doc_id, "rank": h.rank, "score": h.score, "title": h.title, "text": h.text}
            for h in result.hits
        ]
        typer.echo(
            json.dumps(
                {"retriever_version": result.retriever_version, "hits": hits}, ensure_ascii=False
            )
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("rank", "score", "document", "text")
    for hit in result.hits:
        text = " ".join(f"{hit.title} {hit.text}".split())
        table.add_row(str(hit.rank), f"{hit.score:.4f}", hit.doc_id, text[:SNIPPET])
    Console().print(table)
    found = counted(len(result.hits), "hit", "hits")
    typer.echo(f"{found} from release {result.retriever_version}.")
