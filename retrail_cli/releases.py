"""``retrail releases``, ``promote``, ``rollback`` and ``index``."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from consumers.releases import ListedRelease
    from schemas.releases import Comparison, Live
    from schemas.runs import Range

index = typer.Typer(
    help="The collection that searches use.", no_args_is_help=True, rich_markup_mode=None
)


def show(
    as_json: Annotated[
        bool, typer.Option("--json", help="Everything as JSON, for programs.")
    ] = False,
) -> None:
    """List releases, the gate's decisions, and what each release learned from.

    "change" is the difference from the parent's mean nDCG@10 over n held-out queries, "regression"
    that over your own queries (RETRAIL_GATE_REGRESSION); the reason has their one-sided 95% bounds.
    The lineage of the live release goes down to the offsets of its pairs.

    \b
    Examples:
      retrail releases
      retrail releases --json | jq '.releases[] | {version, decision, change: .held_out.difference}'
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

    _print_change(releases.promote(load(), version))


def rollback() -> None:
    """Go back to the release before.

    The pairs of the run that made the one left are not trained on again.

    \b
    Example:
      retrail rollback
    """
    from consumers import releases
    from schemas.settings import load

    _print_change(releases.rollback(load()))


@index.command()
def rebuild() -> None:
    """Build the live release's collection again, beside the one that serves.

    The index worker builds it with its settings (RETRAIL_INDEX_SEARCH), compares it with the
    documents, and swaps it in when it is complete. Until then searches use the one before.

    \b
    Example:
      RETRAIL_INDEX_SEARCH=hybrid retrail worker index
      retrail index rebuild
    """
    from consumers.indexing.releases import request_rebuild
    from schemas.settings import load

    name = request_rebuild(load())
    typer.echo(
        f"The index worker builds {name}, and swaps it in as soon as it is complete. Searches go "
        "on meanwhile."
    )


def _print_change(live: "Live") -> None:
    typer.echo(
        f"Release {live.version} will serve ({live.why}). The index worker swaps once its "
        "collection is complete."
    )


def _print_tables(found: "Sequence[ListedRelease]") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

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
            *_figures(release.held_out),
            *([_figures(release.regression)[-1]] if regression else []),
        )
        if manifest is not None and one.state in ("live", "lineage"):
            lineage.add_row(
                str(release.version),
                manifest.run_id[:12],
                f"{manifest.pairs:,}",
                f"{manifest.replayed:,}",
                _offsets(manifest.ranges),
            )
    console.print(decisions)
    for one in found:
        typer.echo(f"{one.release.version}: {one.release.reason}")
    typer.echo()
    if lineage.row_count:
        console.print(lineage)


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
