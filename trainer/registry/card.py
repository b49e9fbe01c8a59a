"""The model card of a release: what it is, what it learned from, how it was measured.

It lies beside the model in the registry, as Markdown with the metadata that model hubs read. The
records on the topics are the truth; the card is for whoever meets the model without them.
"""

from collections.abc import Iterable, Mapping

from schemas.releases import Metrics, Regression, Release
from schemas.runs import RunManifest
from trainer.model.encoder import Encoder

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
        f"{len(manifest.pair_ids):,} new pairs of a query and a document that served it, and "
        f"{len(manifest.replayed):,} earlier ones against forgetting. The new ones were mined from "
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


def first_card(release: Release, model: str, encoder: Encoder) -> str:
    """Markdown of the first release, which nothing was trained for.

    Args:
        model: what it was made of: RETRAIL_MODEL.
        encoder: of that model.
    """
    before_query, before_document = encoder.prompts
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
                "modules": ", ".join(type(module).__name__ for module in encoder.model),
                "longest input, in tokens": str(encoder.max_tokens),
                "before a query": f"`{before_query}`" if before_query else "nothing",
                "before a document": f"`{before_document}`" if before_document else "nothing",
            }
        ),
        "\n## Evaluation\n",
        "It was not measured: there was nothing to compare it with. The card of every child of it "
        "says how it fares on held-out queries.\n",
    ]
    return "\n".join(parts)


def _evaluation(release: Release) -> list[str]:
    if release.parent_metrics is None or release.child_metrics is None:
        return ["It was not compared with its parent.\n"]
    found = [
        f"On {release.queries:,} held-out queries, which no run trains on, over the same "
        "documents:\n",
        _rows(
            ("", "nDCG@10", "recall@10", "MRR"),
            (_measured("parent", release.parent_metrics), _measured("this", release.child_metrics)),
        ),
    ]
    if release.difference is not None and release.interval is not None:
        low, high = release.interval
        found.append(
            f"\nDifference in nDCG@10: {release.difference:+.4f}, one-sided 95% bounds "
            f"{low:+.4f} and {high:+.4f} (paired bootstrap)."
        )
    if release.regression is not None:
        found += _regression(release.regression)
    return found


def _regression(measured: Regression) -> list[str]:
    low, high = measured.interval
    return [
        f"\nOn {measured.queries:,} queries of the regression set, which was not mined:\n",
        _rows(
            ("", "nDCG@10", "recall@10", "MRR"),
            (
                _measured("parent", measured.parent_metrics),
                _measured("this", measured.child_metrics),
            ),
        ),
        f"\nDifference in nDCG@10: {measured.difference:+.4f}, one-sided 95% bounds {low:+.4f} and "
        f"{high:+.4f}.",
    ]


def _measured(name: str, metrics: Metrics) -> tuple[str, ...]:
    figures = (metrics.ndcg_at_10, metrics.recall_at_10, metrics.mrr)
    return (name, *(f"{figure:.4f}" for figure in figures))


def _table(values: Mapping[str, str]) -> str:
    return _rows(("", ""), values.items())


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
