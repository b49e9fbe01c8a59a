"""The gate, with and without a regression set."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from consumers.training.gate import certain_hold, choose, compare
from consumers.training.metrics import comparing
from schemas.documents import Document
from schemas.releases import GateDecision
from schemas.settings import Settings
from tests.consumers.training.words import OWN, SEEN, Texts, Words, held_out, settings
from trainer.evaluate import evaluation, frozen, queries
from trainer.model.encoder import Encoder, Progress


def gate(
    child: Words,
    own: Path | None,
    *,
    check: Callable[[], None] = lambda: None,
    ancestor: Words | None = None,
) -> GateDecision:
    return gate_with_results(child, own, check=check, ancestor=ancestor)[0]


def gate_with_results(
    child: Words,
    own: Path | None,
    *,
    check: Callable[[], None] = lambda: None,
    ancestor: Words | None = None,
) -> tuple[GateDecision, bytes]:
    return compare(
        cast(Encoder, Words()),
        cast(Encoder, child),
        choose(held_out(), [], [], Texts(), settings(own)),
        Texts(),
        settings=settings(own),
        progress=comparing(check),
        ancestor=(1, cast(Encoder, ancestor)) if ancestor else None,
    )


def regression_set(folder: Path, documents: Sequence[str]) -> Path:
    (folder / "queries.tsv").write_text("".join(f"{word}\t{word}\n" for word in OWN))
    qrels = zip(OWN, documents, strict=True)
    (folder / "qrels.txt").write_text("".join(f"{word} 0 {doc_id} 1\n" for word, doc_id in qrels))
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return regression_set(tmp_path, [f"doc-{word}" for word in OWN])


def test_without_a_regression_set_only_held_out_queries_count() -> None:
    found = gate(Words(*OWN), None)

    assert (found.decision, found.regression) == ("ship", None)
    assert found.held_out is not None
    assert found.held_out.queries == len(SEEN)
    assert found.caps == queries.caps_of(Settings())


def test_a_child_that_is_worse_on_the_regression_set_is_rejected(own: Path) -> None:
    found = gate(Words(*OWN), own)

    assert found.decision == "reject"
    assert found.held_out is not None
    assert found.held_out.difference == 0.0
    assert found.regression is not None
    assert found.regression.queries == len(OWN)
    assert found.regression.parent_metrics.ndcg_at_10 == 1.0
    assert found.regression.difference == -1.0
    assert "on the regression set it changes by -1.0000" in found.reason


def test_a_child_that_is_equal_on_the_regression_set_ships_with_its_figures(own: Path) -> None:
    found = gate(Words(), own)

    assert found.decision == "ship"
    assert found.regression is not None
    assert (found.regression.difference, found.regression.interval) == (0.0, (0.0, 0.0))


def test_judged_documents_missing_from_the_corpus_are_logged(tmp_path: Path) -> None:
    own = regression_set(tmp_path, ["doc-ember", "gone", "gone", "gone"])

    with capture_logs() as logged:
        found = gate(Words(), own)

    assert found.regression is not None
    assert found.regression.queries == 1
    [warning] = [entry for entry in logged if entry["log_level"] == "warning"]
    assert (warning["left_out"], warning["queries"]) == (3, 4)


def test_a_regression_set_without_a_document_in_the_corpus_holds_the_child(tmp_path: Path) -> None:
    found = gate(Words(), regression_set(tmp_path, ["gone"] * len(OWN)))

    assert (found.decision, found.regression) == ("hold", None)
    assert "no document of the regression set is in the corpus" in found.reason


def test_a_comparison_reports_progress_and_can_be_stopped(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.training.metrics.PROGRESS_SECONDS", 0.0)

    with capture_logs() as logged:
        gate(Words(), own)

    shown = [entry for entry in logged if "seconds_left" in entry]
    stages = list(dict.fromkeys(entry["event"] for entry in shown))
    assert stages == ["evaluating the parent", "evaluating the child"]
    assert (shown[-1]["documents"], shown[-1]["seconds_left"]) == (shown[-1]["of"], 0)

    class StoppedInTestError(Exception):
        pass

    def stop() -> None:
        raise StoppedInTestError

    with pytest.raises(StoppedInTestError):
        gate(Words(), own, check=stop)


def test_a_child_that_falls_behind_an_earlier_release_does_not_ship() -> None:
    """Small losses must not add up: the parent has lost two of four queries already."""
    parent = cast(Encoder, Words("amber", "birch"))
    child = cast(Encoder, Words("amber", "birch"))
    questions = choose(held_out(), [], [], Texts(), settings(gate_margin=0.1))

    def decided(ancestor: tuple[int, Encoder] | None) -> GateDecision:
        return compare(
            parent,
            child,
            questions,
            Texts(),
            settings=settings(gate_margin=0.1),
            progress=comparing(lambda: None),
            ancestor=ancestor,
        )[0]

    alone, found = decided(None), decided((3, cast(Encoder, Words())))

    assert (alone.decision, alone.ancestor) == ("ship", None)
    assert (found.decision, found.ancestor_version) == ("hold", 3)
    assert found.ancestor is not None
    assert found.ancestor.difference == -0.5
    assert "from release 3 it changes by -0.5000" in found.reason


def test_results_of_each_query_do_not_depend_on_order() -> None:
    _, results = gate_with_results(Words("delta"), None)

    assert gate_with_results(Words("delta"), None)[1] == results
    *lines, pool = [json.loads(line) for line in results.splitlines()]
    assert pool == {
        "set": "pool",
        "documents": sorted(Texts().sample(100, seed=0)),
        "since_parent": False,
    }
    assert [line["query"] for line in lines] == sorted(SEEN)
    assert {line["set"] for line in lines} == {"held out"}
    last = lines[-1]
    assert last["relevant"] == {"doc-delta": 1}
    assert (last["parent"]["ndcg_at_10"], last["child"]["ndcg_at_10"]) == (1.0, 0.0)
    assert last["parent"]["hits"][0] == "doc-delta"
    assert len(last["child"]["hits"]) == 10
    assert "doc-delta" not in last["child"]["hits"]


def test_results_have_the_queries_of_the_regression_set(own: Path) -> None:
    _, results = gate_with_results(Words(), own)
    *lines, _ = [json.loads(line) for line in results.splitlines()]
    assert [(line["set"], line["query"]) for line in lines] == [
        *(("held out", word) for word in sorted(SEEN)),
        *(("regression", word) for word in sorted(OWN)),
    ]


def test_a_large_corpus_is_compared_on_a_pool_that_only_is_encoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluation, "POOL", 12)
    texts: list[tuple[str, str]] = []
    queries_of: list[str] = []

    def vectors(
        name: str, encoder: Encoder, documents: Sequence[Document], progress: Progress
    ) -> NDArray[np.float32]:
        texts.extend((name, one.doc_id) for one in documents)
        return encoder.encode_documents([one.text for one in documents])

    def hits(asked: Sequence[str], _: object, tenants: Sequence[str | None]) -> list[list[str]]:
        assert tenants == [None] * len(asked)
        queries_of.extend(asked)
        return [["a7", "a8", "a9"]] * len(asked)

    found = settings()
    decision, results = compare(
        cast(Encoder, Words()),
        cast(Encoder, Words()),
        choose(held_out(), [], [], Texts(), found),
        Texts(),
        settings=found,
        progress=comparing(lambda: None),
        vectors=vectors,
        hits=hits,
    )

    pool = set(frozen.parse(results).pool)
    assert (decision.decision, decision.documents, len(pool)) == ("ship", 12, 12)
    assert queries_of == sorted(SEEN)
    assert {f"doc-{word}" for word in SEEN} | {"a7", "a8"} <= pool
    assert {doc_id for _, doc_id in texts} == pool
    assert len(texts) == 2 * len(pool)


class Unused:
    """An encoder that must not be called."""


def test_a_certain_hold_needs_no_encoding(tmp_path: Path) -> None:
    pairs = [*held_out(), *held_out(["not loaded"])]
    few = settings(gate_min_queries=100)
    questions = choose(pairs, [], [], Texts(), few)
    unused = cast(Encoder, Unused())

    decision, results = compare(
        unused, unused, questions, Texts(), settings=few, progress=comparing(lambda: None)
    )

    assert (decision.decision, decision.held_out, results) == ("hold", None, b"")
    assert decision.reason == certain_hold(questions, few)
    assert "4 usable held-out queries, and the gate needs 100" in decision.reason
    assert "1 more are about documents that are not loaded" in decision.reason
    assert certain_hold(questions, settings(gate_min_queries=4)) == ""
