"""``retrail train``."""

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumers.training.metrics import OnStep
    from trainer.fit.finetune import Step

ROUNDING = 0.999
"""Cosine between vectors above which two models differ by rounding; bfloat16 gives as much."""

SHOWN = 5
"""Documents or pairs that are listed for each kind of difference."""


def train(
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            # torchrun takes --run for the beginning of an option of its own, and refuses.
            "--run-id",
            metavar="ID",
            help="Repeat this run from its frozen training file; releases nothing.",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="With --run: select its training file again from the topics and compare; trains "
            "nothing.",
        ),
    ] = False,
) -> None:
    """Train now on the pairs that are new.

    A trainer worker waits until enough pairs have come; this does not. The new model is evaluated
    on held-out queries, and goes live if it passes the gate. A trainer worker that runs meanwhile
    continues afterwards.

    With --run an earlier run is trained again: on the machine that trained it the model is the
    same, file by file. Exit status 1 if it differs. Under torchrun several processes, on one GPU
    each or on CPUs, train it together, with all the negatives of the batch; they sum in another
    order than one process, so the model may differ by rounding, which is reported.

    With --run and --verify the training file of the run is selected again from the topics, by the
    manifest's offsets and rules, with the documents as they are now. Exit status 1 if it differs;
    the differences are listed. A document that changed or was deleted since is an expected one.

    \b
    Examples:
      retrail train
      retrail train --run 3f2a
      retrail train --run 3f2a --verify
      torchrun --nproc-per-node 2 -m retrail_cli train --run-id 3f2a
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and (verify or run is None):
        raise typer.BadParameter(
            "torchrun is for repeating a run: add --run-id ID, without --verify"
        )
    if verify and run is None:
        raise typer.BadParameter("needs a run: --run ID", param_hint="--verify")
    if run is not None:
        (_verify if verify else _reproduce)(run)
        return
    from consumers.training.worker import train_now
    from schemas.settings import load

    settings = load()
    with _progress() as on_step:
        release = train_now(settings, on_step=on_step)
    if release is None:
        typer.echo("No new release: there was nothing new to learn from.")
        return
    typer.echo(f"Release {release.version}: {release.decision} ({release.reason}).")


def _reproduce(run: str) -> None:
    from consumers.training.reproduce import reproduce
    from schemas.settings import load
    from trainer.fit.processes import joined

    settings = load()
    with joined() as processes:
        if processes.first:
            with _progress() as on_step:
                found = reproduce(settings, run, on_step=on_step, processes=processes)
        else:
            found = reproduce(settings, run, processes=processes)
    if found is None:
        return
    version = found.released.version
    typer.echo(f"The model is in {found.folder}.")
    if found.equal:
        typer.echo(f"It equals release {version}: the digests are the same.")
        return
    if processes.size > 1 and found.similarity > ROUNDING:
        typer.echo(
            f"It matches release {version} within rounding (min cosine {found.similarity:.6f}): "
            f"{processes.size} processes sum in another order than one."
        )
        return
    typer.echo(
        f"It differs from release {version}: its digest is {found.digest}, the released one's "
        f"{found.released.model.digest} (min cosine {found.similarity:.6f}). Another machine, "
        "version of torch or number of threads gives other weights."
    )
    raise typer.Exit(1)


def _verify(run: str) -> None:
    from consumers.training.reproduce import EXPECTED, verify
    from retrail_cli.output import bar
    from schemas.settings import load

    settings = load()
    with bar("reading") as advance:
        found = verify(
            settings, run, progress=lambda topic, count: advance(count, f"reading {topic}")
        )
    manifest = found.manifest
    file = f"The training file of run {manifest.run_id} (release {manifest.version}, "
    file += f"{manifest.training_file.examples:,} examples)"
    if found.equal:
        typer.echo(f"{file} equals what the topics give, byte for byte.")
        return
    typer.echo(f"{file} differs from what the topics give now:")
    for kind, subjects in found.differences.items():
        more = ", …" if len(subjects) > SHOWN else ""
        typer.echo(f"  {kind}: {len(subjects):,} ({', '.join(subjects[:SHOWN])}{more})")
    if set(found.differences) <= EXPECTED:
        typer.echo(
            "Documents live on after a run. It can be repeated all the same: the frozen file holds "
            "the texts that it was trained on."
        )
    else:
        typer.echo(
            "Documents that changed do not explain all of it: a topic lost records or was "
            "recreated, a reported outcome was replaced, or other code made the file."
        )
    raise typer.Exit(1)


@contextmanager
def _progress() -> "Iterator[OnStep]":
    """A bar of steps, loss and speed, below the log."""
    from retrail_cli.output import bar
    from retrail_runtime.process import configure

    with bar("training") as advance:
        # Inside, so that its lines appear above the bar.
        configure("INFO")

        def on_step(step: "Step") -> None:
            last = step.step == step.steps
            doing = "last step done" if last else "training"
            speed = f"{step.pairs_per_second:.0f} pairs/s"
            advance(1, f"{doing}, loss {step.loss:.3f}, {speed}", step.steps)

        yield on_step
