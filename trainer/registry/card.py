"""The model card of a release: what it is, what it learned from, how it was measured.

It lies beside the model in the registry, as Markdown with the metadata that model hubs read. The
records on the topics are the truth; the card is for whoever meets the model without them.
"""

from collections.abc import Iterable, Mapping

from schemas.releases import Comparison, Metrics, Release
from schemas.runs import RunManifest
from trainer.model.layout import Layout

_HEAD = """\
---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags:
- sentence-transformers
- feature-extraction
- dense-retrieval
---

"""


def card(release: Release, manifest: RunManifest) -> str:
    """Markdown.

    Args:
        release: of a run that gave a child.
        manifest: of that run.
    """
    parts = [
        f"{_HEAD}# {release.retriever}, version {release.version}\n",
        "A dense retriever in sentence-transformers format, fine-tuned on what search agents "
        "opened, read and found useful (LRAT, arXiv 2604.04949). Queries and documents are "
        "compared by the cosine of their vectors.\n",
        "## Origin\n",
        _table(
            {
                "made": f"{release.created_at:%Y-%m-%d %H:%M %Z}",
                "parent": f"version {release.parent}",
                "training run": f"`{manifest.run_id}`",
                "digest of the model's files": f"`{release.model.digest}`",
                "digest of the training file": f"`{manifest.training_file.digest}`",
            }
        ),
        "\n## Training data\n",
        f"{manifest.pairs:,} new pairs of a query and a document that served it, and "
        f"{manifest.replayed:,} earlier ones against forgetting. The new ones were mined from "
        "agents' trajectories and lie on these offsets:\n",
        _rows(
            ("topic", "partition", "first", "last"),
            (
                (span.topic, str(span.partition), str(span.start), str(span.end - 1))
                for span in manifest.ranges
            ),
        ),
    ]
    if manifest.left_out:
        parts += [
            "\nPairs of these ranges that did not train, by reason:\n",
            _table({reason: f"{count:,}" for reason, count in manifest.left_out.items()}),
        ]
    parts += [
        "\n## Training\n",
        _table(
            {
                name.replace("_", " "): str(value)
                for name, value in manifest.config.model_dump(mode="json").items()
            }
        ),
        "\n## Evaluation\n",
        *_evaluation(release),
        f"\nDecision: **{release.decision}**: {release.reason}.\n",
        "\n## Limits\n",
        "It was measured on questions that agents asked of this installation's own documents; on "
        "others it may be worse than its parent. What agents find useful is not what is true.\n",
    ]
    return "\n".join(parts)


def first_card(release: Release, model: str, layout: Layout) -> str:
    """Markdown of the first release, which nothing was trained for.

    Args:
        model: what it was made of: RETRAIL_MODEL.
        layout: how it reads its texts.
    """
    parts = [
        f"{_HEAD}# {release.retriever}, version {release.version}\n",
        f"A dense retriever in sentence-transformers format: `{model}` as it came, the parent of "
        "all that is trained here. Queries and documents are compared by the cosine of their "
        "vectors.\n",
        "## Origin\n",
        _table(
            {
                "made": f"{release.created_at:%Y-%m-%d %H:%M %Z}",
                "from": f"`{model}`, under whose licence it is",
                "digest of the model's files": f"`{release.model.digest}`",
            }
        ),
        "\n## Texts\n",
        _table(
            {
                "pooling": layout.pooling,
                "longest input, in tokens": str(layout.max_tokens or "the model's own limit"),
                "before a query": f"`{layout.query_prefix}`" if layout.query_prefix else "nothing",
                "before a document": (
                    f"`{layout.document_prefix}`" if layout.document_prefix else "nothing"
                ),
            }
        ),
        "\n## Evaluation\n",
        "It was not measured: there was nothing to compare it with. The card of every child of it "
        "says how it fares on held-out queries.\n",
    ]
    return "\n".join(parts)


def _evaluation(release: Release) -> list[str]:
    if release.held_out is None:
        return ["It was not compared with its parent.\n"]
    found = _compared(
        release.held_out, "held-out queries, which no run trains on, over the same documents"
    )
    if release.regression is not None:
        found += _compared(release.regression, "queries of the regression set, which was not mined")
    return found


def _compared(found: Comparison, queries: str) -> list[str]:
    low, high = found.interval
    return [
        f"\nOn {found.queries:,} {queries}:\n",
        _rows(
            ("", "nDCG@10", "recall@10", "MRR"),
            (_measured("parent", found.parent_metrics), _measured("this", found.child_metrics)),
        ),
        f"\nDifference in nDCG@10: {found.difference:+.4f}, one-sided 95% bounds {low:+.4f} and "
        f"{high:+.4f} (paired bootstrap).",
    ]


def _measured(name: str, metrics: Metrics) -> tuple[str, ...]:
    figures = (metrics.ndcg_at_10, metrics.recall_at_10, metrics.mrr)
    return (name, *(f"{figure:.4f}" for figure in figures))


def _table(values: Mapping[str, str]) -> str:
    return _rows(("", ""), values.items())


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
