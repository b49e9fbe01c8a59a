import csv
from typing import Any

from schemas.releases import Comparison, Metrics, Release
from schemas.runs import Range
from tests.trained import a_manifest, a_release
from trainer.fit.checkpoint import Step
from trainer.registry.card import card, first_card, steps_csv

MANIFEST = a_manifest(
    4,
    ranges=(
        Range(topic="labelled-pairs", partition=0, start=5, end=1200),
        Range(topic="labelled-pairs", partition=1, start=0, end=7),
    ),
    pairs=1100,
    left_out={"held out": 102},
)


COMPARISON = Comparison(
    queries=240,
    parent_metrics=Metrics(ndcg_at_10=0.41, recall_at_10=0.6, mrr=0.4),
    child_metrics=Metrics(ndcg_at_10=0.45, recall_at_10=0.63, mrr=0.44),
    difference=0.04,
    interval=(0.012, 0.07),
)


def compared(**changes: Any) -> Release:
    return a_release(4, 3, "ship", **({"held_out": COMPARISON} | changes))


def test_a_card_has_origin_data_training_and_evaluation() -> None:
    text = card(compared(), MANIFEST)

    _, head, body = text.split("---\n", 2)
    assert "library_name: sentence-transformers" in head.splitlines()
    assert body.lstrip().startswith("# r, version 4\n")
    for line in (
        "| parent | version 3 |",
        f"| digest of the training file | `{'c' * 64}` |",
        "| labelled-pairs | 0 | 5 | 1199 |",
        "| labelled-pairs | 1 | 0 | 6 |",
        "| held out | 102 |",
        "| learning rate | 3e-05 |",
        "| parent (version 3) | 0.4100 | 0.6000 | 0.4000 |",
        "| child | 0.4500 | 0.6300 | 0.4400 |",
        "Decision: **ship**: because of 4.",
    ):
        assert line in text.splitlines()
    assert "1,100 new pairs" in text
    assert "+0.0400, one-sided 95% bounds +0.0120 and +0.0700" in text


def test_the_card_of_a_candidate_names_who_decides() -> None:
    assert "index worker decides" in card(compared(candidate=True), MANIFEST)
    assert "index worker decides" not in card(compared(), MANIFEST)


def test_a_card_without_a_comparison() -> None:
    text = card(compared(held_out=None), MANIFEST)
    assert "not compared with its parent" in text
    assert "0.4500" not in text


OTHER = Comparison(
    queries=50,
    parent_metrics=Metrics(ndcg_at_10=0.7, recall_at_10=0.8, mrr=0.75),
    child_metrics=Metrics(ndcg_at_10=0.71, recall_at_10=0.81, mrr=0.76),
    difference=0.01,
    interval=(-0.005, 0.02),
)


def test_a_card_has_the_regression_set() -> None:
    lines = card(compared(regression=OTHER), MANIFEST).splitlines()

    assert "On 50 queries of the regression set (RETRAIL_GATE_REGRESSION):" in lines
    assert "| parent (version 3) | 0.7000 | 0.8000 | 0.7500 |" in lines
    assert "| child | 0.7100 | 0.8100 | 0.7600 |" in lines


def test_a_card_has_the_comparison_with_the_ancestor() -> None:
    text = card(compared(ancestor=OTHER, ancestor_version=1), MANIFEST)

    lines = text.splitlines()
    at = lines.index("On 50 held-out queries, compared with an earlier release of the lineage:")
    assert "| version 1 | 0.7000 | 0.8000 | 0.7500 |" in lines[at:]
    assert "| child | 0.7100 | 0.8100 | 0.7600 |" in lines[at:]
    assert "+0.0100, one-sided 95% bounds -0.0050 and +0.0200" in text


def test_the_card_of_the_first_release_has_its_inputs() -> None:
    text = first_card(
        a_release(1, None, "first"),
        "org/model",
        max_tokens=256,
        query_prompt="query: ",
        document_prompt="",
    )

    assert "library_name: sentence-transformers" in text
    for line in (
        "# r, version 1",
        "| model | `org/model`, whose licence applies |",
        f"| digest of the model's files | `{'d' * 64}` |",
        "| longest input, in tokens | 256 |",
        "| prompt of queries | `query: ` |",
        "| prompt of documents | none |",
    ):
        assert line in text.splitlines()


def test_training_steps_are_written_as_csv() -> None:
    steps = [
        Step(1, 2, 0.75, 3e-05, 32, pairs_per_second=10.0, eta_seconds=3.2),
        Step(2, 2, 0.5, 0.0, 16, pairs_per_second=10.0, eta_seconds=0.0),
    ]

    rows = list(csv.DictReader(steps_csv(steps).splitlines()))

    assert [float(row["loss"]) for row in rows] == [0.75, 0.5]
    assert rows[0] == {"step": "1", "loss": "0.75", "learning_rate": "3e-05", "pairs": "32"}
