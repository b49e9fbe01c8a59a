"""``retrail train``, ``releases``, ``promote``, ``rollback`` and ``index``."""

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from retrail_cli.output import print_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from consumers.releases import ListedRelease
    from consumers.training.metrics import OnStep
    from schemas.releases import Comparison, Live
    from schemas.runs import Range
    from trainer.fit.checkpoint import Step

index = typer.Typer(
    help="Manage the collection that searches use.", no_args_is_help=True, rich_markup_mode=None
)


def show(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """List releases with the gate's decisions and their training data.

    "change" is the difference from the parent's mean nDCG@10 over n held-out queries, "regression"
    the difference over your own queries (RETRAIL_GATE_REGRESSION); the reason gives one-sided 95%
    bounds. They are measured on a pool of documents; once the index worker has decided on a
    candidate, on all documents. The lineage of the live release lists the offsets of its pairs.

    \b
    Examples:
      retrail releases
      retrail releases --json | jq '.releases[] | {version, state, decision, second}'
    """
    from consumers.releases import listed
    from consumers.training.history import RunHistory
    from retrail_runtime.kafka import require_broker
    from schemas.settings import load
    from schemas.topics import Topics

    settings = load()
    topics = Topics.of(settings)
    require_broker(settings, [topics.retriever_releases, topics.training_runs])
    history = RunHistory(settings).refresh()
    live, found = history.releases.live, listed(history)
    if as_json:
        document = {
            "live": live and live.model_dump(mode="json", exclude_none=True),
            "releases": [one.to_json() for one in found],
        }
        typer.echo(json.dumps(document, indent=2))
        return
    if not found:
        typer.echo("There is no release yet: `retrail worker index` registers the first one.")
        return
    _print_tables(found)
    if live:
        typer.echo(f"Release {live.version} is live: {live.why}.")
    for one in found:
        version = one.release.version
        if one.state == "waiting":
            typer.echo(f"Release {version} waits: `retrail promote {version}` makes it live.")
        elif one.state == "open":
            typer.echo(
                f"Release {version} is a candidate: the index worker builds its collection and "
                "decides on it."
            )


def promote(
    version: Annotated[int, typer.Argument(min=1, help="A version of `retrail releases`.")],
) -> None:
    """Make a release live.

    The index worker builds its collection, then switches searches to it. A release whose collection
    failed the gate's check cannot be promoted.

    \b
    Example:
      retrail promote 3
    """
    from consumers import releases
    from retrail_runtime import audit
    from schemas.settings import load

    settings = load()
    before = releases.read(settings).live
    live = releases.promote(settings, version)
    if live == before:
        typer.echo(f"Release {version} is live already.")
        return
    audit.write(settings, "promote", version=version)
    _print_change(live)


def rollback() -> None:
    """Make the previous release live again.

    The pairs of the run that trained the current release are quarantined.

    \b
    Example:
      retrail rollback
    """
    from consumers import releases
    from retrail_runtime import audit
    from schemas.settings import load

    settings = load()
    live = releases.rollback(settings)
    audit.write(settings, "rollback", version=live.version)
    _print_change(live)


@index.command()
def rebuild() -> None:
    """Rebuild the live release's collection while the present one serves.

    The index worker builds the new collection with its settings (RETRAIL_INDEX_SEARCH), compares it
    with the documents, and switches searches to it when it is complete.

    \b
    Example:
      RETRAIL_INDEX_SEARCH=hybrid retrail worker index
      retrail index rebuild
    """
    from consumers.indexing.releases import request_rebuild
    from schemas.settings import load

    name = request_rebuild(load())
    typer.echo(
        f"The index worker builds {name} and switches searches to it when it is complete. Until "
        "then searches use the present collection."
    )


def _print_change(live: "Live") -> None:
    typer.echo(
        f"Release {live.version} will serve ({live.why}) when the index worker has built its "
        "collection."
    )


def _print_tables(found: "Sequence[ListedRelease]") -> None:
    columns = ["", "version", "parent", "made", "decision", "n", "nDCG@10", "change"]
    if regression := any(one.release.regression for one in found):
        columns.append("regression")
    decisions, lineage = [], []
    for one in found:
        release, manifest, last = one.release, one.manifest, one.second or one.release
        decisions.append(
            (
                "" if one.state in ("lineage", "other") else one.state,
                str(release.version),
                str(release.parent or ""),
                f"{release.created_at:%Y-%m-%d}",
                one.decision,
                *_figures(last.held_out),
                *([_figures(last.regression)[-1]] if regression else []),
            )
        )
        if manifest is not None and one.state in ("live", "lineage"):
            counts = (f"{manifest.pairs:,}", f"{manifest.replayed:,}", f"{manifest.earlier:,}")
            offsets = _offsets(manifest.ranges)
            lineage.append((str(release.version), manifest.run_id[:12], *counts, offsets))
    print_table(columns, decisions, "Releases")
    for one in found:
        typer.echo(f"{one.release.version}: {one.release.reason}")
        if one.second is not None:
            typer.echo(f"{one.release.version}, second stage: {one.second.reason}")
    typer.echo()
    if lineage:
        columns = ["version", "run", "pairs", "replayed", "earlier queries", "offsets"]
        print_table(columns, lineage, "Training data of the live release")


def _figures(found: "Comparison | None") -> tuple[str, str, str]:
    """Queries, nDCG@10 of the child, and its difference from the parent's."""
    if found is None:
        return "", "", ""
    child = found.child_metrics.ndcg_at_10
    return f"{found.queries:,}", f"{child:.4f}", f"{found.difference:+.4f}"


def _offsets(ranges: "Iterable[Range]") -> str:
    """First and last offset of each range, by topic and partition."""
    return ", ".join(
        f"{span.topic}[{span.partition}] {span.start:,} to {span.end - 1:,}" for span in ranges
    )


ROUNDING = 0.999
"""Cosine similarity above which two models differ by rounding only (that of bfloat16)."""

SHOWN = 5
"""How many documents or pairs are listed for each kind of difference."""


def train(
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            # torchrun rejects --run as an ambiguous prefix of its own options.
            "--run-id",
            metavar="ID",
            help="Repeat this run from its frozen training file; nothing is released. ?: list the "
            "last runs.",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="With --run: select its training file again from the topics and compare; nothing "
            "is trained.",
        ),
    ] = False,
) -> None:
    """Train on the new pairs now.

    Unlike `retrail worker train`, this command does not wait for enough pairs or held-out queries.
    The new model is evaluated on held-out queries over a pool of documents. If it passes, it is a
    candidate: the index worker builds its collection, compares both over all documents, and makes
    it live if it passes again. A running train worker continues afterwards.

    --run repeats an earlier run. On the machine that trained it, the model is identical, file by
    file; exit status 1: it differs. Under torchrun several processes, on one GPU each or on CPUs,
    train together with all negatives of the batch. They add in another order than one process, so
    the model may differ by rounding, which is reported.

    --run with --verify selects the training file again from the topics, by the offsets and rules of
    the manifest, with the present documents; exit status 1: it differs. The differences are listed.
    Documents that changed or were deleted since are expected differences.

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
    from schemas.settings import load

    settings = load()
    if run is not None:
        from consumers.training.history import find_run, listing

        # Before torch is imported, which takes seconds.
        if run == "?":
            typer.echo(listing(settings))
            return
        find_run(settings, run)
        (_verify if verify else _reproduce)(run)
        return
    from consumers.training.worker import train_now

    with _progress() as on_step:
        release = train_now(settings, on_step=on_step)
    if isinstance(release, str):
        typer.echo(f"No new release: {release}.")
        return
    decision = "candidate" if release.candidate else release.decision
    typer.echo(f"Release {release.version}: {decision} ({release.reason}).")
    if release.candidate:
        typer.echo("The index worker builds its collection and decides (`retrail releases`).")


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
    if found.erasures:
        typer.echo(
            f"It differs from release {version} by erasure {', '.join(found.erasures)} (min cosine "
            f"{found.similarity:.6f})."
        )
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
    if "erasure" in found.differences:
        typer.echo("Pairs were erased after the run, so its other pairs cannot be compared.")
    elif set(found.differences) <= EXPECTED:
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
        configure("INFO", json=False)

        def on_step(step: "Step") -> None:
            last = step.step == step.steps
            doing = "last step done" if last else "training"
            speed = f"{step.pairs_per_second:.0f} pairs/s"
            advance(1, f"{doing}, loss {step.loss:.3f}, {speed}", step.steps)

        yield on_step
