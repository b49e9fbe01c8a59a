"""``retrail releases``, ``retrail promote``, ``retrail rollback``."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from schemas.releases import Live, Metrics


def show() -> None:
    """List releases and the gate's decisions.

    \b
    Example:
      retrail releases
    """
    from rich.console import Console
    from rich.table import Table

    from consumers import releases
    from schemas.broker import require_broker
    from schemas.settings import load
    from schemas.topics import Topics

    settings = load()
    require_broker(settings, [Topics.of(settings).retriever_releases])
    found = releases.read(settings)
    if not found.by_version:
        typer.echo("There is no release yet: `retrail worker index` registers the first one.")
        return
    live = found.live.version if found.live else None
    table = Table(
        "", "version", "parent", "made", "decision", "nDCG@10", "before", "queries", "why"
    )
    for version, release in sorted(found.by_version.items()):
        table.add_row(
            "live" if version == live else "",
            str(version),
            str(release.parent or ""),
            f"{release.created_at:%Y-%m-%d %H:%M}",
            release.decision,
            _ndcg(release.child_metrics),
            _ndcg(release.parent_metrics),
            f"{release.queries:,}" if release.queries else "",
            release.reason,
        )
    Console().print(table)
    if found.live:
        typer.echo(f"Release {live} is live: {found.live.why}.")


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


def _ndcg(metrics: "Metrics | None") -> str:
    return "" if metrics is None else f"{metrics.ndcg_at_10:.4f}"
