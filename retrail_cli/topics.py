"""``retrail topics``."""

import typer

app = typer.Typer(
    help="Create the topics, or see whether they are as they should be.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def create() -> None:
    """Create every topic that is absent; safe to repeat.

    A topic that exists with other partitions, retention, compaction, timestamps or size limit is
    an error that names all differences.
    """
    from rich.console import Console
    from rich.table import Table

    from deploy.topics import ensure, kept
    from schemas.settings import load
    from schemas.topics import specs

    settings = load()
    states = dict(ensure(settings))
    table = Table("topic", "partitions", "kept", "state")
    for spec in specs(settings):
        table.add_row(spec.name, str(spec.partitions), kept(spec), states[spec.name])
    Console().print(table)


@app.command("list")
def show() -> None:
    """Show every topic, and how it differs from what it should be."""
    from rich.console import Console
    from rich.table import Table

    from deploy.topics import kept, survey
    from schemas.settings import load

    table = Table("topic", "partitions", "kept", "state")
    for spec, actual, differences in survey(load()):
        if actual is None:
            state = "absent: retrail topics create"
        elif differences:
            state = "\n".join(
                f"{found.what} is {found.actual}, should be {found.wanted}" for found in differences
            )
        else:
            state = "as it should be"
        partitions = actual.partitions if actual else spec.partitions
        table.add_row(spec.name, str(partitions), kept(spec), state)
    Console().print(table)
