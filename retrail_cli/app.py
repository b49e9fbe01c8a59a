"""All commands, put together. Their modules import nothing heavy."""

from typing import Annotated

import typer

from retrail_cli import (
    dlq,
    doctor,
    installation,
    local,
    pairs,
    releases,
    search,
    train,
    trajectories,
    worker,
)
from retrail_cli.documents import command

app = typer.Typer(
    help="Learns from what search agents do: trajectories on Kafka become training pairs, better "
    "retrievers and fresh Milvus indexes.\n\nStart with `retrail demo`, or `retrail up` for a "
    "stack of your own on this machine.",
    epilog="Settings are RETRAIL_… variables (RETRAIL_KAFKA_BOOTSTRAP, RETRAIL_MILVUS_URI, …), or "
    "lines of a file that RETRAIL_ENV_FILE names; `retrail settings` prints them, `retrail doctor` "
    "checks them.",
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
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    from retrail_runtime.process import configure

    configure("INFO" if verbose else "WARNING")


app.command()(local.up)
app.command()(local.demo)
app.command()(doctor.doctor)
app.command()(installation.settings)
app.command()(trajectories.publish)
app.command()(trajectories.mine)
app.command()(pairs.pairs)
app.command()(search.search)
app.command()(search.serve)
app.command()(search.mcp)
app.command()(train.train)
app.command("releases")(releases.show)
app.command()(releases.promote)
app.command()(releases.rollback)
app.add_typer(installation.topics, name="topics")
app.add_typer(worker.app, name="worker")
app.add_typer(releases.index, name="index")
app.add_typer(command.app, name="documents")
app.add_typer(dlq.app, name="dlq")
