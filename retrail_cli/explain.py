"""``retrail explain``: how a pair, trajectory, document, query or release came about."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from retrail_cli.output import counted, print_table
from retrail_cli.records import pairs_on_topic

if TYPE_CHECKING:
    from retrail_runtime.kafka import Record
    from schemas.pairs import LabelledPair
    from schemas.runs import TrainingFile
    from schemas.settings import Settings
    from streams.mine.explaining import Explained
    from trainer.data.examples import TrainingExample
    from trainer.data.lineage import History
    from trainer.registry.registry import Registry

Kind = Literal["pair", "trajectory", "document", "query", "release"]
Found = list[tuple["Record", "LabelledPair"]]

ID_DIGITS = 8
"""Digits of a pair's id that are enough to name it."""


def explain(
    what: Annotated[
        str,
        typer.Argument(
            metavar="PAIR|TRAJECTORY|DOCUMENT|QUERY|RELEASE",
            help="Id of a pair (or its first 8 digits), of a trajectory or a document; a query; "
            "the version of a release.",
        ),
    ],
    kind: Annotated[
        Kind | None,
        typer.Option("--as", help="What it is, where it could be several.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many pairs to explain, newest last.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how a pair, trajectory, document, query or release came about.

    Shows the events with their offsets and verdicts, the rule that made each negative, the runs
    that trained on a pair (with its weight) or left it out (with the reason), their releases, the
    gate's results of the queries, and the collections.

    \b
    Examples:
      retrail explain 5f0c2f1c
      retrail explain "when was the harbour lamp lit" --json
      retrail explain 3
    """
    from consumers.training.history import RunHistory
    from schemas.errors import InputError
    from schemas.settings import load
    from trainer.registry.registry import Registry

    settings = load()
    history, registry = RunHistory(settings).refresh(), Registry.of(settings)
    found = _matching(settings, history, what)
    kinds = [name for name, pairs in found.items() if pairs is not None]
    kind = kind or (kinds[0] if kinds else "trajectory")
    chosen = found[kind] or []
    trajectories = _trajectories(settings, chosen[-limit:], what if kind == "trajectory" else None)
    is_known = kind == "query" or (kind == "release" and found["release"] is not None)
    if not chosen and not trajectories and not is_known:
        raise InputError(
            f"There is no pair, trajectory, document, query or release {what!r}. A query without a "
            "pair: --as query."
        )
    uses = partial(_uses, history, cache(partial(_examples, registry)))
    used = [(record, pair, list(uses(record, pair))) for record, pair in chosen[-limit:]]
    versions = {use["version"] for _, _, runs in used for use in runs}
    versions |= {int(what)} if kind == "release" else set()
    queries = {what} if kind == "query" else {pair.query for _, pair in chosen[-limit:]}
    answer = {
        "kind": kind,
        "what": what,
        "number_of_pairs": len(chosen),
        "trajectories": trajectories,
        "pairs": [
            {
                "pair": pair.model_dump(mode="json", exclude_none=True),
                "place": {"partition": record.partition, "offset": record.offset},
                "runs": runs,
            }
            for record, pair, runs in used
        ],
        "gate": _gate(history, registry, versions if kind == "release" else None, queries),
        "releases": _releases(history, versions),
        "collections": _collections(settings, versions),
    }
    if as_json:
        typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        _print(answer)


def _matching(settings: "Settings", history: "History", what: str) -> dict[Kind, Found | None]:
    """The pairs that ``what`` may name, by kind; ``None``: it is nothing of that kind."""
    from trainer.data.draws import normalize_query

    found: dict[Kind, Found] = defaultdict(list)
    query = normalize_query(what)
    for record, pair in pairs_on_topic(settings):
        kinds: dict[Kind, bool] = {
            "pair": len(what) >= ID_DIGITS and pair.pair_id.startswith(what),
            "trajectory": pair.trajectory_id == what,
            "document": what in (pair.positive, *pair.negatives),
            "query": normalize_query(pair.query) == query,
        }
        for kind, matches in kinds.items():
            if matches:
                found[kind].append((record, pair))
    is_release = what.isdecimal() and int(what) in history.releases.by_version
    return {
        "release": [] if is_release else None,
        **{kind: found[kind] or None for kind in ("pair", "trajectory", "document", "query")},
    }


def _trajectories(settings: "Settings", chosen: Found, wanted: str | None) -> list[dict[str, Any]]:
    """Events and browses of the pairs' trajectories, and of ``wanted`` if it gave no pair."""
    from schemas.topics import Topics

    topic = Topics.of(settings).judged_events
    # An id may have been that of several trajectories without numbers, one after another.
    spans = {
        (pair.trajectory_id, record.partition, *pair.sources): None
        for record, pair in chosen
        if pair.sources is not None
    }
    if wanted is not None and not spans and (found := _on_log(settings, topic, wanted)):
        spans[(wanted, *found)] = None
    return [
        {
            "trajectory_id": name,
            "topic": topic,
            "partition": partition,
            **_replayed(_replay(settings, topic, name, partition, first, last)),
        }
        for name, partition, first, last in spans
    ]


def _on_log(settings: "Settings", topic: str, name: str) -> tuple[int, int, int] | None:
    """Partition, first and last offset of a trajectory, from the keys of judged-events."""
    import orjson

    from retrail_cli.output import bar
    from retrail_runtime.erasures import ErasureLog
    from retrail_runtime.kafka import read_to_end

    found: tuple[int, int, int] | None = None
    erased = ErasureLog(settings).refresh()
    with bar(f"reading {topic}") as advance:
        for record in read_to_end(settings, topic):
            advance()
            if record.key == name.encode():
                event = orjson.loads(record.value or b"{}")
                subjects = {"agent": event.get("agent", {}).get("name", "")}
                subjects |= {"trajectory": name, "tenant": event.get("tenant", "")}
                if erased.covering([(topic, record.partition, record.offset)], **subjects):
                    continue
                first = record.offset if found is None else found[1]
                found = (record.partition, first, record.offset)
    return found


def _replay(
    settings: "Settings", topic: str, name: str, partition: int, first: int, last: int
) -> "Explained":
    from retrail_runtime.kafka import read_to_end
    from streams.mine.explaining import explain

    records = read_to_end(settings, topic, {partition: first}, {partition: last + 1})
    return explain(records, name, settings)


def _replayed(found: "Explained") -> dict[str, Any]:
    from streams.events import encode

    events = []
    for offset, event, result in found.events:
        fields = json.loads(encode(event))
        shown = ("seq", "query", "hits", "doc_id", "about", "verdict", "judge", "judge_version")
        kept = {name: fields[name] for name in (*shown, "tokens", "outcome") if name in fields}
        events.append({"offset": offset, "type": fields["type"], "result": result, **kept})
    browses = [
        {
            "browse": decision.browse.name,
            "doc_id": decision.browse.doc_id,
            "verdict": decision.verdict,
            "result": decision.result,
            "rank": decision.rank,
            "pair_id": pair and pair.pair_id,
            "documents": {doc_id: decision.role_of(doc_id) for doc_id in decision.documents},
        }
        for decision, pair in found.decisions
    ]
    return {"events": events, "browses": browses}


def _examples(registry: "Registry", frozen: "TrainingFile") -> dict[str, "TrainingExample"]:
    return {example.pair_id: example for example in registry.load_training_file(frozen)}


def _uses(
    history: "History",
    examples: "Callable[[TrainingFile], dict[str, TrainingExample]]",
    record: "Record",
    pair: "LabelledPair",
) -> Iterable[dict[str, Any]]:
    """The runs that trained on a pair, and those of whose ranges it was left out."""
    from schemas.errors import InputError, ModelError
    from trainer.data import lineage
    from trainer.data.selection import why_left_out
    from trainer.data.weighting import scale_of, weight

    def among(ranges: Iterable[Any]) -> bool:
        place = record.topic, record.partition
        return any(
            (one.topic, one.partition) == place and one.start <= record.offset < one.end
            for one in ranges
        )

    for manifest in history.runs:
        new = among(manifest.ranges)
        if not new and not among(lineage.trained(history, manifest.parent)):
            continue
        use = {"run_id": manifest.run_id, "version": manifest.version}
        try:
            example = examples(manifest.training_file).get(pair.pair_id)
            earlier = [
                one
                for one in examples(manifest.training_file).values()
                if one.found_by == pair.pair_id
            ]
        except (InputError, ModelError) as error:
            yield use | {"unknown": str(error)}
            continue
        if example is not None:
            scale = scale_of(pair, manifest.intensity)
            yield use | {
                "trained": "new" if new else "replayed",
                "weight": example.weight,
                "negatives": len(example.negatives),
                "reasoning_tokens": pair.reasoning_tokens,
                "beta": scale and scale.beta,
                "mu": scale and scale.mu,
                "outcome_factor": example.weight / weight(pair, manifest.intensity),
            }
        elif new:
            yield use | {"left_out": why_left_out(pair, manifest.left_out)}
        for one in earlier:
            yield use | {
                "trained": "earlier query",
                "query": one.query,
                "weight": one.weight,
                "negatives": len(one.negatives),
            }


def _gate(
    history: "History", registry: "Registry", versions: set[int] | None, queries: set[str]
) -> list[dict[str, Any]]:
    """The gate's results: of some releases, or of some queries in all releases."""
    from trainer.data.draws import normalize_query

    wanted = {normalize_query(query) for query in queries}
    found = []
    for version, release in sorted(history.releases.by_version.items()):
        if release.results is None or (versions is not None and version not in versions):
            continue
        for line in (registry.read_beside(release.model, "gate.jsonl") or "").splitlines():
            row = json.loads(line)
            if row["set"] == "pool":
                continue
            if versions is not None or normalize_query(row["query"]) in wanted:
                found.append({"version": version, **row})
    return found


def _releases(history: "History", versions: set[int]) -> list[dict[str, Any]]:
    from consumers.releases import listed

    return [one.to_json() for one in listed(history) if one.release.version in versions]


def _collections(settings: "Settings", versions: set[int]) -> list[dict[str, Any]]:
    """The collections of the releases; empty, with a warning, if Milvus does not answer."""
    from consumers.indexing.milvus import Milvus
    from schemas.errors import RetrailError

    if not versions:
        return []
    try:
        milvus = Milvus(settings, retry_seconds=0)
        alias, builds = milvus.aliased(), milvus.builds()
        milvus.close()
    except RetrailError as error:
        typer.echo(f"Collections are unknown: {error}", err=True)
        return []
    return [
        {
            "collection": build.collection,
            "version": build.version,
            "search": build.search,
            "alias": build.collection == alias,
        }
        for build in builds
        if build.version in versions
    ]


def _print(answer: dict[str, Any]) -> None:
    for found in answer["trajectories"]:
        title = f"Trajectory {found['trajectory_id']}, partition {found['partition']}"
        print_table(
            ("offset", "seq", "event", "verdict", "result"), map(_event, found["events"]), title
        )
        for browse in found["browses"]:
            made = f"pair {browse['pair_id']}" if browse["pair_id"] else "no pair"
            typer.secho(f"{browse['doc_id']}: {browse['result']}, {made}", bold=True)
            for doc_id, role in browse["documents"].items():
                if role != "positive" and (
                    answer["kind"] != "document" or doc_id == answer["what"]
                ):
                    typer.echo(f"  {doc_id}: {role}")
    for found in answer["pairs"]:
        pair = found["pair"]
        typer.secho(f"Pair {pair['pair_id']}: {pair['query']}", bold=True)
        typer.echo(
            f"  {pair['verdict']} {pair['positive']}, by {pair['judge']} {pair['judge_version']}; "
            f"closed by {pair['closed_by']}, outcome {pair['outcome']}"
        )
        for use in found["runs"]:
            typer.echo(f"  run {use['run_id'][:ID_DIGITS]} (release {use['version']}): {_use(use)}")
        if not found["runs"]:
            typer.echo("  no run has read it yet")
    for row in answer["gate"]:
        typer.echo(
            f"Gate of release {row['version']}, {row['set']}: {row['query']}: nDCG@10 "
            f"{row['parent']['ndcg_at_10']:.3f} → {row['child']['ndcg_at_10']:.3f}"
        )
    for release in answer["releases"]:
        typer.echo(
            f"Release {release['version']}: {release['decision']}, {release['state']} "
            f"({release['reason']})"
        )
    for build in answer["collections"]:
        searched = ", which searches use" if build["alias"] else ""
        typer.echo(f"Collection {build['collection']} of release {build['version']}{searched}")
    if (more := answer["number_of_pairs"] - len(answer["pairs"])) > 0:
        typer.echo(f"{counted(more, 'earlier pair is', 'earlier pairs are')} not shown: --limit.")


def _event(event: dict[str, Any]) -> tuple[str, ...]:
    what = event.get("query") or event.get("doc_id") or event.get("about") or ""
    if "hits" in event:
        what += f" ({counted(len(event['hits']), 'hit', 'hits')})"
    judge = f" by {event['judge']} {event.get('judge_version', '')}" if "judge" in event else ""
    return (
        str(event["offset"]),
        str(event.get("seq", "")),
        f"{event['type']} {what}".strip(),
        f"{event.get('verdict', '')}{judge}",
        event["result"],
    )


def _use(use: dict[str, Any]) -> str:
    if "unknown" in use:
        return f"unknown: {use['unknown']}"
    if "left_out" in use:
        return f"left out ({' or '.join(use['left_out'])})"
    how = ""
    if use["trained"] == "earlier query":
        how = f", {use['query']!r}"
    elif use["reasoning_tokens"] and use["beta"]:
        how = (
            f" = (1 - exp(-ln 2 * {use['reasoning_tokens']} / {use['beta']:g})) / {use['mu']:.4g}"
            f" * {use['outcome_factor']:g}"
        )
    return f"{use['trained']}, weight {use['weight']:.4g}{how}, {use['negatives']} negatives"
