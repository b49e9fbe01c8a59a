"""``retrail erase``."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from retrail_cli.output import counted, print_table

if TYPE_CHECKING:
    from consumers.erasing import Erased
    from schemas.settings import Settings

INCOMPLETE = 3
"""Exit status: something is kept without limit."""


def erase(
    trajectory: Annotated[
        str | None, typer.Option(help="Erase this trajectory.", show_default=False)
    ] = None,
    agent: Annotated[
        str | None, typer.Option(help="Erase all of this agent.", show_default=False)
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Erase all of this tenant.", show_default=False)
    ] = None,
) -> None:
    """Erase the data of a trajectory, an agent or a tenant.

    Everything that is on the topics now is not used any more: no pair of it is mined, shown,
    exported, imported or trained on. Training files and results of the gate are rewritten without
    it, and reported outcomes of its trajectories are withdrawn. Later records of the same agent or
    tenant are kept. Needs RETRAIL_ERASE_KEY, here and for the workers mine and train.

    The command lists the runs and releases that learned from the data, and what only the retention
    of a topic removes, with the date. docs/privacy.md explains both.

    \b
    Exit status: 3 if a topic that holds the data is kept without limit.

    \b
    Examples:
      retrail erase --trajectory task-17
      retrail erase --tenant acme
    """
    from consumers.erasing import erase as run
    from retrail_runtime import audit
    from schemas.errors import InputError
    from schemas.settings import load

    chosen = [
        (kind, value)
        for kind, value in (("trajectory", trajectory), ("agent", agent), ("tenant", tenant))
        if value is not None
    ]
    if len(chosen) != 1:
        raise InputError("Give one of --trajectory ID, --agent NAME and --tenant NAME.")
    settings = load()
    ((kind, identifier),) = chosen
    found = run(settings, kind, identifier)  # type: ignore[arg-type]
    audit.write(settings, "erase", kind=kind, erasure=found.erasure.erasure_id, pairs=found.pairs)
    typer.echo(
        f"Erasure {found.erasure.erasure_id}: {counted(found.pairs, 'pair is', 'pairs are')} not "
        f"used any more; {counted(found.files, 'file', 'files')} of the registry rewritten, "
        f"{counted(found.reports, 'reported outcome', 'reported outcomes')} withdrawn."
    )
    if found.runs:
        typer.echo(f"Runs that trained on them: {', '.join(found.runs)}.")
    if found.learned:
        versions = ", ".join(map(str, found.learned))
        typer.echo(
            f"Releases that learned from them, and keep what they learned: {versions}. To replace "
            "them, promote a release before these (`retrail promote`) and train on the other pairs."
        )
    _show_retention(settings, found)


def _show_retention(settings: "Settings", found: "Erased") -> None:
    rows = list(_retained(settings, found))
    print_table(("still holds the data", "until"), rows, title="Removed by retention only:")
    if settings.registry_url.startswith("s3"):
        typer.echo("Earlier versions of objects in the bucket: until its lifecycle rule ends them.")
    endless = [name for name, until in rows if until == "without limit"]
    if endless:
        typer.echo(
            f"The erasure is not complete: {', '.join(endless)} is kept without limit. Set "
            "RETRAIL_PAIRS_RETENTION_HOURS, and give the topic that retention "
            "(`retrail topics list` shows the difference).",
            err=True,
        )
        raise typer.Exit(INCOMPLETE)


def _retained(settings: "Settings", found: "Erased") -> Iterator[tuple[str, str]]:
    """Topics that hold identifiers or texts of agents, and when their last record is removed."""
    from deploy.topics import describe
    from retrail_runtime.kafka import admin
    from schemas.topics import Topics

    own = Topics.of(settings.model_copy(update={"revision": ""}))
    holding = (own.trajectory_events, own.judged_events, own.labelled_pairs)
    beside = (own.trajectory_events_dlq, own.otlp_spans, own.agent_spans)
    names = [
        name
        for name in found.topics
        if name in (*holding, *beside) or name.startswith(tuple(f"{one}-" for one in holding))
    ]
    for name, topic in sorted(describe(admin(settings), names).items()):
        milliseconds = int(topic["retention.ms"])
        if milliseconds < 0:
            yield name, "without limit"
            continue
        # A segment is removed when its newest record is old enough.
        whole = timedelta(milliseconds=milliseconds + int(topic["segment.ms"]))
        yield name, f"{datetime.now(UTC) + whole:%Y-%m-%d}"
