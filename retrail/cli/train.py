"""``retrail train``."""

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumers.training_child import OnStep
    from trainer.finetune import Step


def train(
    run: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Repeat this run from its frozen training file; releases nothing."
        ),
    ] = None,
) -> None:
    """Train now on the pairs that are new.

    A trainer worker waits until enough have come; this does not. The run is measured on held-out
    queries; a release that passes the gate goes live. A trainer worker that runs meanwhile goes on
    afterwards.

    With --run an earlier run is trained again: on the machine that trained it the model is the
    same, file by file. Exit status 1 if it is another one.

    \b
    Examples:
      retrail train
      retrail train --run 3f2a
    """
    if run is not None:
        _repeat(run)
        return
    from consumers.training import train_now
    from schemas.settings import load

    settings = load()
    with _shown() as on_step:
        release = train_now(settings, on_step=on_step)
    if release is None:
        typer.echo("No new release: there was nothing new to learn from.")
        return
    typer.echo(f"Release {release.version}: {release.decision} ({release.reason}).")


def _repeat(run: str) -> None:
    from consumers.training_repeat import repeat
    from schemas.settings import load

    settings = load()
    with _shown() as on_step:
        repeated = repeat(settings, run, on_step=on_step)
    version = repeated.released.version
    typer.echo(f"The model lies in {repeated.folder}.")
    if not repeated.equal:
        typer.echo(
            f"It is not release {version}: its digest is {repeated.digest}, the released one's "
            f"{repeated.released.model.digest}. Another machine, version of torch or number of "
            "threads gives other weights."
        )
        raise typer.Exit(1)
    typer.echo(f"It is release {version}: the digests are equal.")


@contextmanager
def _shown() -> "Iterator[OnStep]":
    """Steps, loss and speed on a bar, and the log above it."""
    from retrail.cli.progress import bar
    from schemas.logging import configure

    with bar("training") as advance:
        # Inside, so that its lines appear above the bar.
        configure("INFO")

        def on_step(step: "Step") -> None:
            last = step.step == step.steps
            doing = "last step done" if last else "training"
            speed = f"{step.pairs_per_second:.0f} pairs/s"
            advance(1, f"{doing}, loss {step.loss:.3f}, {speed}", step.steps)

        yield on_step
