"""All commands. Their modules import no heavy library at the top."""

from typing import Annotated

import typer

from retrail_cli import (
    erase,
    explain,
    installation,
    records,
    releases,
    restore,
    search,
    stack,
    trajectories,
)
from retrail_cli.documents import command

app = typer.Typer(
    help="Learn from the trajectories of search agents: Kafka topics in, better retrievers and "
    "Milvus indexes out.\n\nStart with `retrail demo`, or run your own stack on this machine with "
    "`retrail up`.",
    epilog="Settings are RETRAIL_… environment variables (RETRAIL_KAFKA_BOOTSTRAP, "
    "RETRAIL_MILVUS_URI, …), or lines of the file at RETRAIL_ENV_FILE. `retrail settings` prints "
    "them, `retrail doctor` checks them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(version("retrail-server"))
        except PackageNotFoundError:
            typer.echo("not installed: run from a source folder")
        raise typer.Exit


@app.callback()
def begin(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log at level INFO.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    from retrail_runtime.process import configure

    # For a person, wherever it goes; workers and servers configure it again.
    configure("INFO" if verbose else "WARNING", json=False)


app.command()(stack.up)
app.command()(stack.demo)
app.command()(installation.doctor)
app.command("restore-check")(restore.check)
app.command()(installation.settings)
app.command()(trajectories.publish)
app.command()(trajectories.mine)
app.command()(records.pairs)
app.command()(explain.explain)
app.command()(erase.erase)
app.command()(search.search)
app.command()(search.serve)
app.command()(search.mcp)
app.command()(releases.train)
app.command("releases")(releases.show)
app.command()(releases.promote)
app.command()(releases.rollback)
app.add_typer(installation.topics, name="topics")
app.add_typer(stack.worker, name="worker")
app.add_typer(releases.index, name="index")
app.add_typer(command.app, name="documents")
app.add_typer(records.dlq, name="dlq")
