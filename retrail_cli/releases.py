"""``retrail releases``, ``retrail promote``, ``retrail rollback``."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumers.release_listing import Listed
    from schemas.releases import Live, Metrics, Release


def show(
    as_json: Annotated[
        bool, typer.Option("--json", help="Everything as JSON, for programs.")
    ] = False,
) -> None:
    """List releases, the gate's decisions, and what each release learned from.

    The change is that of the mean nDCG@10 over n held-out queries from the parent's, regression
    that on your own queries (RETRAIL_GATE_REGRESSION); their one-sided 95% bounds stand in the
    reason. The lineage of the live release goes down to the offsets of its
    pairs.

    \b
    Examples:
      retrail releases
      retrail releases --json | jq '.releases[] | {version, decision, difference}'
    """
    from consumers import release_listing
    from retrail_runtime.kafka import require_broker
    from schemas.settings import load
    from schemas.topics import Topics

    settings = load()
    topics = Topics.of(settings)
    require_broker(settings, [topics.retriever_releases, topics.training_runs])
    known, found = release_listing.read(settings)
    if as_json:
        live = known.live.model_dump(mode="json", exclude_none=True) if known.live else None
        typer.echo(
            json.dumps({"live": live, "releases": [one.to_json() for one in found]}, indent=2)
        )
        return
    if not found:
        typer.echo("There is no release yet: `retrail worker index` registers the first one.")
        return
    _print_tables(found)
    if known.live:
        typer.echo(f"Release {known.live.version} is live: {known.live.why}.")
    for one in found:
        if one.state == "waiting":
            version = one.release.version
            typer.echo(f"Release {version} waits: `retrail promote {version}` makes it live.")


def promote(
    version: Annotated[int, typer.Argument(min=1, help="As `retrail releases` lists it.")],
) -> None:
    """Make a release the one that serves.

    The index worker builds its collection and swaps.

    \b
    Example:
      retrail promote 3
    """
    from consumers import releases
    from schemas.settings import load

    _say(releases.promote(load(), version))


def rollback() -> None:
    """Go back to the release before.

    The pairs of the run that made the one left are not trained on again.

    \b
    Example:
      retrail rollback
    """
    from consumers import releases
    from schemas.settings import load

    _say(releases.rollback(load()))


def _say(live: "Live") -> None:
    typer.echo(
        f"Release {live.version} is to serve ({live.why}). The index worker swaps as soon as its "
        "collection is complete."
    )


def _print_tables(found: "Sequence[Listed]") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from consumers.release_listing import offsets

    console = Console()
    decisions = Table(title="Releases", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    columns = ["", "version", "parent", "made", "decision", "n", "nDCG@10", "change"]
    if regression := any(one.release.regression for one in found):
        columns.append("regression")
    for name in columns:
        decisions.add_column(name, no_wrap=True)
    lineage = Table(
        title="What the live release learned from",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in ("version", "run", "pairs", "replayed", "offsets"):
        lineage.add_column(name, overflow="fold")
    for one in found:
        release, manifest = one.release, one.manifest
        decisions.add_row(
            one.state if one.state in ("live", "quarantined", "waiting") else "",
            str(release.version),
            str(release.parent or ""),
            f"{release.created_at:%Y-%m-%d}",
            release.decision,
            f"{release.queries:,}" if release.queries else "",
            _ndcg(release.child_metrics),
            _change(release.difference),
            *([_change(_regression(release))] if regression else []),
        )
        if manifest is not None and one.state in ("live", "lineage"):
            lineage.add_row(
                str(release.version),
                manifest.run_id[:12],
                f"{len(manifest.pair_ids):,}",
                f"{len(manifest.replayed):,}",
                offsets(one.ranges),
            )
    console.print(decisions)
    for one in found:
        typer.echo(f"{one.release.version}: {one.release.reason}")
    typer.echo()
    if lineage.row_count:
        console.print(lineage)


def _regression(release: "Release") -> float | None:
    return release.regression.difference if release.regression else None


def _change(difference: float | None) -> str:
    return "" if difference is None else f"{difference:+.4f}"


def _ndcg(metrics: "Metrics | None") -> str:
    return "" if metrics is None else f"{metrics.ndcg_at_10:.4f}"
