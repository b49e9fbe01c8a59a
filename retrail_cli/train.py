"""``retrail train``."""

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumers.training.child import OnStep
    from consumers.training.verify import Kind, Verified
    from trainer.fit.finetune import Step

ALIKE = 0.999
"""Cosine between vectors above which two models differ by rounding; bfloat16 gives as much."""

SHOWN = 5
"""Documents or pairs that are named for each kind of difference."""


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
            help="With --run: rebuild its training file from the topics and compare; trains "
            "nothing.",
        ),
    ] = False,
) -> None:
    """Train now on the pairs that are new.

    A trainer worker waits until enough have come; this does not. The run is measured on held-out
    queries; a release that passes the gate goes live. A trainer worker that runs meanwhile goes on
    afterwards.

    With --run an earlier run is trained again: on the machine that trained it the model is the
    same, file by file. Exit status 1 if it is another one. Under torchrun several processes, on one
    GPU each or on CPUs, train it together, with all the negatives of the batch; they sum in another
    order than one does, so the model may differ by rounding, and how much is said.

    With --run and --verify the file that the run was trained on is rebuilt from the topics and
    compared: the pairs by the manifest's offsets and ids, the texts from the documents as they are
    now. Exit status 1 if it differs; what differs is named. A document that changed or was deleted
    since is an expected difference.

    \b
    Examples:
      retrail train
      retrail train --run 3f2a
      retrail train --run 3f2a --verify
      torchrun --nproc-per-node 2 -m retrail_cli train --run-id 3f2a
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and (verify or run is None):
        raise typer.BadParameter(
            "under torchrun a run that exists is repeated: say --run-id ID, without --verify"
        )
    if verify and run is None:
        raise typer.BadParameter("say which run: --run ID", param_hint="--verify")
    if run is not None:
        (_verify if verify else _repeat)(run)
        return
    from consumers.training.training_worker import train_now
    from schemas.settings import load

    settings = load()
    with _shown() as on_step:
        release = train_now(settings, on_step=on_step)
    if release is None:
        typer.echo("No new release: there was nothing new to learn from.")
        return
    typer.echo(f"Release {release.version}: {release.decision} ({release.reason}).")


def _repeat(run: str) -> None:
    from consumers.training.repeat import repeat
    from schemas.settings import load
    from trainer.fit.processes import joined

    settings = load()
    with joined() as processes:
        if processes.first:
            with _shown() as on_step:
                repeated = repeat(settings, run, on_step=on_step, processes=processes)
        else:
            repeated = repeat(settings, run, processes=processes)
    if repeated is None:
        return
    version = repeated.released.version
    typer.echo(f"The model lies in {repeated.folder}.")
    if repeated.equal:
        typer.echo(f"It is release {version}: the digests are equal.")
        return
    if processes.size > 1 and repeated.similarity > ALIKE:
        typer.echo(
            f"It is release {version} but for rounding: the smallest cosine between vectors of "
            f"both is {repeated.similarity:.6f}. {processes.size} processes sum in another order "
            "than one."
        )
        return
    typer.echo(
        f"It is not release {version}: its digest is {repeated.digest}, the released one's "
        f"{repeated.released.model.digest} (smallest cosine between vectors of both: "
        f"{repeated.similarity:.6f}). Another machine, version of torch or number of threads gives "
        "other weights."
    )
    raise typer.Exit(1)


def _verify(run: str) -> None:
    from consumers.training.verify import verify
    from retrail_cli.output import bar
    from schemas.settings import load

    settings = load()
    with bar("reading") as advance:
        found = verify(
            settings, run, progress=lambda topic, count: advance(count, f"reading {topic}")
        )
    _tell(found)
    if not found.equal:
        raise typer.Exit(1)


def _tell(found: "Verified") -> None:
    from consumers.training.verify import EXPECTED

    manifest = found.manifest
    of = f"of run {manifest.run_id} (release {found.version}, {manifest.training_file.examples:,} "
    of += "examples)"
    if found.equal:
        typer.echo(f"The training file {of} is what the topics give, byte for byte.")
        return
    typer.echo(f"The training file {of} is not what the topics give now:")
    for kind, subjects in found.by_kind().items():
        more = ", …" if len(subjects) > SHOWN else ""
        typer.echo(f"  {_phrase(kind)}: {len(subjects):,} ({', '.join(subjects[:SHOWN])}{more})")
    if set(found.by_kind()) <= EXPECTED:
        typer.echo(
            "That is what happens to documents in time. The run can be repeated all the same: "
            "the frozen file holds the texts that it was trained on."
        )
    else:
        typer.echo(
            "Not all of that comes of documents that changed: a topic lost records or was "
            "recreated, or the file was made by other code."
        )


def _phrase(kind: "Kind") -> str:
    phrases: dict[Kind, str] = {
        "document changed": "documents whose text changed since",
        "document deleted": "documents deleted since",
        "document added": "documents that had no text of their own then",
        "pair lost": "pairs that the topic no longer holds",
        "pair differs": "pairs of another query, positive or negatives",
        "weight differs": "pairs of another weight (a report of their outcome may be replaced)",
        "intensity differs": "lengths of reasonings measured otherwise, run",
    }
    return phrases[kind]


@contextmanager
def _shown() -> "Iterator[OnStep]":
    """Steps, loss and speed on a bar, and the log above it."""
    from retrail_cli.output import bar
    from retrail_runtime.logging import configure

    with bar("training") as advance:
        # Inside, so that its lines appear above the bar.
        configure("INFO")

        def on_step(step: "Step") -> None:
            last = step.step == step.steps
            doing = "last step done" if last else "training"
            speed = f"{step.pairs_per_second:.0f} pairs/s"
            advance(1, f"{doing}, loss {step.loss:.3f}, {speed}", step.steps)

        yield on_step
