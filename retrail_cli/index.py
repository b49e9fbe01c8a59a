"""``retrail index``."""

import typer

app = typer.Typer(
    help="The collection that searches use.", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def rebuild() -> None:
    """Build the live release's collection again, beside the one that serves.

    The index worker builds it with its settings (RETRAIL_INDEX_SEARCH), compares it with the
    documents, and swaps it in when it is complete. Until then searches use the one before.

    \b
    Example:
      RETRAIL_INDEX_SEARCH=hybrid retrail worker index
      retrail index rebuild
    """
    from consumers.indexing.releases import request_rebuild
    from schemas.settings import load

    name = request_rebuild(load())
    typer.echo(
        f"The index worker builds {name}, and swaps it in as soon as it is complete. Searches go "
        "on meanwhile."
    )
