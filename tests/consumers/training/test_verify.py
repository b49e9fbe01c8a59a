"""A training file rebuilt from pairs and documents, and what differs."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from consumers.training.verify import Difference, Verified, compare
from schemas.pairs import LabelledPair
from schemas.runs import RunManifest, TrainingFile
from schemas.settings import Settings
from tests.trainer.labelled import labelled
from trainer.data import examples, training_file, weighting
from trainer.data.examples import TrainingExample
from trainer.fit import finetune
from trainer.model.presets import PRESETS

PAIRS = [
    labelled(
        number,
        positive=f"d{number}",
        negatives=(f"d{number + 1}", "shared"),
        rejected=1,
        reasoning_tokens=10 * (number + 1),
    )
    for number in range(6)
]
TEXTS = {f"d{number}": f"text {number}" for number in range(7)} | {"shared": "shared text"}


def frozen(
    pairs: list[LabelledPair], texts: dict[str, str]
) -> tuple[RunManifest, tuple[TrainingExample, ...]]:
    """What a run over ``pairs`` would have frozen."""
    intensity = weighting.measure(pairs)
    built = examples.build(examples.trainable(pairs, share=0.0), texts.get, intensity).examples
    ids = sorted(pair.pair_id for pair in pairs)
    manifest = RunManifest(
        run_id="0" * 32,
        retriever="r",
        parent=1,
        created_at=datetime(2026, 11, 1, tzinfo=UTC),
        ranges=(),
        pair_ids=tuple(ids[:4]),
        replayed=tuple(ids[4:]),
        left_out={},
        intensity=intensity,
        config=finetune.config_of(Settings(), PRESETS["minilm"]),
        training_file=TrainingFile(
            location="x",
            digest=training_file.digest(training_file.dump(built)),
            examples=len(built),
        ),
    )
    return manifest, built


def compared(
    pairs: list[LabelledPair] = PAIRS,
    texts: dict[str, str] = TEXTS,
    factor_of: Callable[[LabelledPair], float] = lambda pair: 1.0,
) -> Verified:
    """The run over :data:`PAIRS` and :data:`TEXTS` beside what is there now."""
    manifest, built = frozen(PAIRS, TEXTS)
    return compare(manifest, 2, built, {p.pair_id: p for p in pairs}, texts, factor_of)


def test_the_same_pairs_and_texts_give_the_file() -> None:
    found = compared(PAIRS[::-1])
    assert found.equal
    assert found.differences == ()


@pytest.mark.parametrize(
    ("texts", "difference"),
    [
        (TEXTS | {"d3": "other"}, Difference("document changed", "d3")),
        (TEXTS | {"shared": "other"}, Difference("document changed", "shared")),
        ({k: v for k, v in TEXTS.items() if k != "d6"}, Difference("document deleted", "d6")),
        ({k: v for k, v in TEXTS.items() if k != "d0"}, Difference("document deleted", "d0")),
    ],
)
def test_a_document_that_lived_on_is_named_once(
    texts: dict[str, str], difference: Difference
) -> None:
    found = compared(texts=texts)
    assert not found.equal
    assert found.differences == (difference,)


def test_a_document_that_had_no_text_then_is_named() -> None:
    manifest, built = frozen(PAIRS, {k: v for k, v in TEXTS.items() if k != "shared"})
    found = compare(manifest, 2, built, {p.pair_id: p for p in PAIRS}, TEXTS)
    assert not found.equal
    assert found.differences == (Difference("document added", "shared"),)


@pytest.mark.parametrize(
    "changes",
    [{"query": "other"}, {"positive": "d5"}, {"negatives": ("shared",)}, {"rejected": 0}],
)
def test_a_pair_that_reads_otherwise_is_named(changes: dict[str, Any]) -> None:
    other = PAIRS[2].model_copy(update=changes)
    found = compared([other if pair is PAIRS[2] else pair for pair in PAIRS])
    assert not found.equal
    assert Difference("pair differs", other.pair_id) in found.differences


def test_lost_pairs_other_weights_and_lengths_are_named() -> None:
    assert compared(PAIRS[1:]).differences == (Difference("pair lost", PAIRS[0].pair_id),)
    halved = compared(factor_of=lambda pair: 0.5 if pair is PAIRS[1] else 1.0)
    assert halved.differences == (Difference("weight differs", PAIRS[1].pair_id),)
    longer = PAIRS[1].model_copy(update={"reasoning_tokens": 500})
    found = compared([longer if pair is PAIRS[1] else pair for pair in PAIRS])
    assert set(found.by_kind()) == {"weight differs", "intensity differs"}
    assert not any(one.equal for one in (halved, found))


def test_an_example_that_no_pair_of_the_manifest_gives_is_a_difference() -> None:
    manifest, built = frozen(PAIRS, TEXTS)
    altered = (replace(built[0], weight=9.0), *built[1:])
    found = compare(manifest, 2, altered, {p.pair_id: p for p in PAIRS}, TEXTS)
    assert found.differences == (Difference("weight differs", built[0].pair_id),)
