"""The gate with a regression set: queries that no agent asked."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from consumers.training.gate import compare
from consumers.training.metrics import comparing
from schemas.documents import Document
from schemas.events import Agent
from schemas.pairs import LabelledPair, pair_id
from schemas.releases import GateDecision
from schemas.settings import Settings
from trainer.evaluate import queries
from trainer.model.encoder import Encoder, Progress

SEEN = ("amber", "birch", "cedar", "delta")
OWN = ("ember", "fjord", "grove", "heron")
WORDS = SEEN + OWN


class Words:
    """An encoder of bags of words, blind to some."""

    def __init__(self, *blind_to: str) -> None:
        self._words = [word for word in WORDS if word not in blind_to]

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        counts = [[text.split().count(word) for word in self._words] for text in texts]
        return np.array(counts, dtype=np.float32).reshape(len(texts), len(self._words))

    def encode_documents(
        self, texts: Sequence[str], *, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        for done in range(1, len(texts) + 1):
            if progress is not None:
                progress(done, len(texts))
        return self.encode_queries(texts)


class Texts:
    """Documents of one word each, after others that come first where nothing is known."""

    def __init__(self) -> None:
        fillers = {f"a{number}": f"filler {number}" for number in range(20)}
        self._texts = fillers | {f"doc-{word}": word for word in WORDS}

    def all_ids(self) -> list[str]:
        return list(self._texts)

    def get(self, ids: Iterable[str]) -> dict[str, Document]:
        return {name: Document(doc_id=name, text=self._texts[name]) for name in ids}


def held_out() -> list[LabelledPair]:
    return [
        LabelledPair(
            pair_id=pair_id("", "t", number, "reference"),
            trajectory_id="t",
            browse_seq=number,
            revision="",
            profile="reference",
            query=word,
            positive=f"doc-{word}",
            negatives=(),
            verdict="relevant",
            judge="local",
            judge_version="1",
            rejected=0,
            rank=1,
            outcome="unknown",
            closed_by="end",
            gaps=0,
            agent=Agent(name="a", model="m"),
            tenant="",
        )
        for number, word in enumerate(SEEN)
    ]


def gate(
    child: Words, own: Path | None, *, check: Callable[[], None] = lambda: None
) -> GateDecision:
    return compare(
        cast(Encoder, Words()),
        cast(Encoder, child),
        held_out(),
        [],
        Texts(),
        settings=Settings(gate_margin=0.5, gate_min_queries=1, gate_regression=own),
        progress=comparing(check),
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


def test_a_child_that_loses_the_users_own_queries_is_rejected(own: Path) -> None:
    found = gate(Words(*OWN), own)

    assert found.decision == "reject"
    assert found.held_out is not None
    assert found.held_out.difference == 0.0
    assert found.regression is not None
    assert found.regression.queries == len(OWN)
    assert found.regression.parent_metrics.ndcg_at_10 == 1.0
    assert found.regression.difference == -1.0
    assert "on the regression set it changes by -1.0000" in found.reason


def test_a_child_that_keeps_them_ships_with_the_figures(own: Path) -> None:
    found = gate(Words(), own)

    assert found.decision == "ship"
    assert found.regression is not None
    assert (found.regression.difference, found.regression.interval) == (0.0, (0.0, 0.0))


def test_judged_documents_that_are_not_in_the_corpus_are_logged(tmp_path: Path) -> None:
    own = regression_set(tmp_path, ["doc-ember", "gone", "gone", "gone"])

    with capture_logs() as logged:
        found = gate(Words(), own)

    assert found.regression is not None
    assert found.regression.queries == 1
    [warning] = [entry for entry in logged if entry["log_level"] == "warning"]
    assert (warning["left_out"], warning["queries"]) == (3, 4)


def test_a_set_without_a_known_document_holds_the_child(tmp_path: Path) -> None:
    found = gate(Words(), regression_set(tmp_path, ["gone"] * len(OWN)))

    assert (found.decision, found.regression) == ("hold", None)
    assert "no document of the regression set is in the corpus" in found.reason


def test_a_comparison_shows_how_far_it_is_and_can_be_ended(
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
