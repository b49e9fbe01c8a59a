"""The model card, and a table of the training steps; both are stored beside the model.

The card is Markdown with the metadata of model hubs. It describes the model, its training data and
its evaluation, from the records on the topics.
"""

from collections.abc import Iterable, Mapping

from schemas.releases import Comparison, Metrics, Release
from schemas.runs import RunManifest
from trainer.fit.checkpoint import Step

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
    """The model card of a trained release, as Markdown.

    Args:
        release: of a run that trained a child.
        manifest: of that run.
    """
    parts = [
        f"{_HEAD}# {release.retriever}, version {release.version}\n",
        "A dense retriever in sentence-transformers format, fine-tuned on which documents search "
        "agents opened, read and used (LRAT, arXiv 2604.04949). The score of a document is the "
        "cosine of its vector and the query's.\n",
        "## Origin\n",
        _table(
            {
                "created": f"{release.created_at:%Y-%m-%d %H:%M %Z}",
                "parent": f"version {release.parent}",
                "training run": f"`{manifest.run_id}`",
                "digest of the model's files": f"`{release.model.digest}`",
                "digest of the training file": f"`{manifest.training_file.digest}`",
            }
        ),
        *_training_data(manifest),
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
        *(["The index worker decides again, on all documents.\n"] if release.candidate else ()),
        "\n## Limitations\n",
        "The evaluation covers agents' queries over the documents of this installation. On other "
        "queries or documents the model may be worse than its parent. Documents that agents use "
        "are not always correct.\n",
    ]
    return "\n".join(parts)


def first_card(
    release: Release,
    model: str,
    *,
    max_tokens: int,
    query_prompt: str,
    document_prompt: str,
) -> str:
    """The model card of the first release, which is untrained, as Markdown.

    Args:
        model: RETRAIL_MODEL.
        max_tokens: longest input, in tokens.
        query_prompt: prefix of every query.
        document_prompt: prefix of every document.
    """
    parts = [
        f"{_HEAD}# {release.retriever}, version {release.version}\n",
        f"A dense retriever in sentence-transformers format: `{model}` without further "
        "training; all later versions descend from it. The score of a document is the cosine of "
        "its vector and the query's.\n",
        "## Origin\n",
        _table(
            {
                "created": f"{release.created_at:%Y-%m-%d %H:%M %Z}",
                "model": f"`{model}`, whose licence applies",
                "digest of the model's files": f"`{release.model.digest}`",
            }
        ),
        "\n## Inputs\n",
        _table(
            {
                "longest input, in tokens": str(max_tokens),
                "prompt of queries": f"`{query_prompt}`" if query_prompt else "none",
                "prompt of documents": f"`{document_prompt}`" if document_prompt else "none",
            }
        ),
        "\n## Evaluation\n",
        "The first release is not evaluated. The cards of its children compare them with it on "
        "held-out queries.\n",
    ]
    return "\n".join(parts)


def steps_csv(steps: Iterable[Step]) -> str:
    """Loss and learning rate of each optimiser step, as CSV with a header."""
    rows = (f"{step.step},{step.loss},{step.learning_rate},{step.pairs}" for step in steps)
    return "\n".join(("step,loss,learning_rate,pairs", *rows, ""))


def _training_data(manifest: RunManifest) -> list[str]:
    parts = [
        "\n## Training data\n",
        f"{manifest.pairs:,} new pairs of a query and a relevant document, "
        f"{manifest.replayed:,} replayed ones of earlier runs, and {manifest.earlier:,} of queries "
        "that agents asked before they found the document. The new pairs were mined from agents' "
        "trajectories; they have these offsets:\n",
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
            "\nPairs with these offsets that were not used, by reason:\n",
            _table({reason: f"{count:,}" for reason, count in manifest.left_out.items()}),
        ]
    return parts


def _evaluation(release: Release) -> list[str]:
    if release.held_out is None:
        return ["It was not compared with its parent.\n"]
    held_out = "held-out queries, which are never trained on, over the same documents"
    found = _compared(release.held_out, held_out, f"parent (version {release.parent})")
    if release.ancestor is not None:
        found += _compared(
            release.ancestor,
            "held-out queries, compared with an earlier release of the lineage",
            f"version {release.ancestor_version}",
        )
    if release.regression is not None:
        own = "queries of the regression set (RETRAIL_GATE_REGRESSION)"
        found += _compared(release.regression, own, f"parent (version {release.parent})")
    return found


def _compared(found: Comparison, queries: str, before: str) -> list[str]:
    low, high = found.interval
    return [
        f"\nOn {found.queries:,} {queries}:\n",
        _rows(
            ("", "nDCG@10", "recall@10", "MRR"),
            (_measured(before, found.parent_metrics), _measured("child", found.child_metrics)),
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
