"""``retrail topics``."""

import typer

app = typer.Typer(
    help="Create the topics, or compare them with what Retrail needs.",
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

    from deploy.topics import ensure, retention
    from schemas.settings import load
    from schemas.topics import specs

    settings = load()
    states = dict(ensure(settings))
    table = Table("topic", "partitions", "retention", "state")
    for spec in specs(settings):
        table.add_row(spec.name, str(spec.partitions), retention(spec), states[spec.name])
    Console().print(table)


@app.command("list")
def show() -> None:
    """Show every topic, and how it differs from what Retrail needs."""
    from rich.console import Console
    from rich.table import Table

    from deploy.topics import retention, survey
    from schemas.settings import load

    table = Table("topic", "partitions", "retention", "state")
    for spec, actual, differences in survey(load()):
        if actual is None:
            state = "absent: retrail topics create"
        elif differences:
            state = "\n".join(
                f"{found.what} is {found.actual}, should be {found.wanted}" for found in differences
            )
        else:
            state = "ok"
        partitions = actual.partitions if actual else spec.partitions
        table.add_row(spec.name, str(partitions), retention(spec), state)
    Console().print(table)
