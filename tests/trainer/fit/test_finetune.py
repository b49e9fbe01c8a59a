import math
import resource
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.settings import Settings
from tests.trainer.labelled import example, misleading_examples, training_config
from trainer.data.examples import TrainingExample
from trainer.evaluate import evaluation
from trainer.fit import finetune, gradients
from trainer.fit.batching import Batch
from trainer.fit.checkpoint import Checkpoint, Step
from trainer.fit.finetune import TrainingError
from trainer.fit.loss import weighted_info_nce
from trainer.model.encoder import Encoder
from trainer.model.presets import PRESETS, Preset

EXAMPLES = misleading_examples(lambda i: 0.5 + i / 8)


def weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def queries_of(examples: Sequence[TrainingExample]) -> dict[str, set[str]]:
    return {e.query: {e.positive_id} for e in examples}


def test_the_child_learns_its_pairs_and_the_parent_is_unchanged(encoder: Encoder) -> None:
    before = weights(encoder)
    documents = {e.positive_id: e.positive_text for e in EXAMPLES}
    documents |= {doc_id: text for e in EXAMPLES for doc_id, text in e.negatives}

    report = finetune.finetune(encoder, EXAMPLES, training_config(epochs=20))

    assert same(weights(encoder), before)
    parent, child = (
        evaluation.mean(evaluation.evaluate(e, queries_of(EXAMPLES), documents)).ndcg_at_10
        for e in (encoder, report.encoder)
    )
    assert child > 0.9
    assert child > parent + 0.3
    assert report.steps[-1].loss < report.steps[0].loss / 2


def test_every_planned_batch_is_adjusted_before_the_first_step(encoder: Encoder) -> None:
    config = training_config(epochs=2)
    seen: list[Batch] = []

    def without_negatives(batch: Batch) -> Batch:
        seen.append(batch)
        everything = frozenset(range(len(batch.documents)))
        return replace(batch, masked=tuple(everything - {own} for own in batch.positive))

    report = finetune.finetune(encoder, EXAMPLES, config, adjust=without_negatives)

    assert seen == finetune.plan(EXAMPLES, config)
    assert [step.loss for step in report.steps] == [0.0] * len(seen)


def test_two_runs_give_identical_weights(tiny: Path) -> None:
    first = finetune.finetune(Encoder.load(tiny), EXAMPLES, training_config())
    second = finetune.finetune(Encoder.load(tiny), list(reversed(EXAMPLES)), training_config())

    assert same(weights(first.encoder), weights(second.encoder))
    assert [step.loss for step in first.steps] == [step.loss for step in second.steps]


class KilledError(Exception):
    """Ends a training between two steps."""


@pytest.mark.parametrize("rank", [0, 2], ids=["all weights", "lora"])
def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_weights(
    tiny: Path, tmp_path: Path, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.fit.checkpoint.SECONDS", 0.0)
    monkeypatch.setattr("trainer.fit.checkpoint.SHARE", 0)
    config = training_config(epochs=3).model_copy(update={"lora_rank": rank})
    whole = finetune.finetune(Encoder.load(tiny), EXAMPLES, config)
    made: list[int] = []

    def checkpoint(function: str = "f") -> Checkpoint:
        return Checkpoint(tmp_path / "checkpoint", function)

    def kill_after(count: int) -> Callable[[Step], None]:
        def on_step(step: Step) -> None:
            made.append(step.step)
            if step.step == count:
                raise KilledError

        return on_step

    for count in (1, 2, 4):
        with pytest.raises(KilledError):
            finetune.finetune(
                Encoder.load(tiny),
                EXAMPLES,
                config,
                on_step=kill_after(count),
                checkpoint=checkpoint(),
            )
    resumed = finetune.finetune(
        Encoder.load(tiny), EXAMPLES, config, on_step=kill_after(0), checkpoint=checkpoint()
    )
    assert made == [step.step for step in whole.steps], "no step is made twice"
    assert same(weights(resumed.encoder), weights(whole.encoder))
    assert [step.loss for step in resumed.steps] == [step.loss for step in whole.steps]

    made.clear()
    (tmp_path / "checkpoint").write_bytes(b"damaged")
    for other in (checkpoint(), checkpoint("another run")):
        again = finetune.finetune(
            Encoder.load(tiny), EXAMPLES, config, on_step=kill_after(0), checkpoint=other
        )
        assert same(weights(again.encoder), weights(whole.encoder))
    assert len(made) == 2 * len(whole.steps)


def test_a_full_disk_costs_the_checkpoint_and_not_the_training(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.fit.checkpoint.SECONDS", 0.0)
    config, encoder = training_config(epochs=1), Encoder.load(tiny)
    checkpoint = Checkpoint(tmp_path / "checkpoint", "f")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        report = finetune.finetune(encoder, EXAMPLES, config, checkpoint=checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert report.steps
    assert list(tmp_path.iterdir()) == []


def test_another_seed_gives_another_child(encoder: Encoder) -> None:
    first = finetune.finetune(encoder, EXAMPLES, training_config(seed=1))
    second = finetune.finetune(encoder, EXAMPLES, training_config(seed=2))

    assert not same(weights(first.encoder), weights(second.encoder))


def test_minilm_gives_the_same_child_twice_in_bfloat16() -> None:
    minilm = Encoder.load("minilm", precision="bfloat16", device="cpu")
    short = training_config(epochs=2, learning_rate=5e-5, max_tokens=16)

    first = finetune.finetune(minilm, EXAMPLES[:4], short)
    second = finetune.finetune(minilm, EXAMPLES[:4], short)

    assert same(weights(first.encoder), weights(second.encoder))
    assert not same(weights(first.encoder), weights(minilm))


def test_progress_reports_steps_loss_speed_and_time_left(encoder: Encoder) -> None:
    seen: list[Step] = []

    report = finetune.finetune(encoder, EXAMPLES, training_config(epochs=3), on_step=seen.append)

    assert tuple(seen) == report.steps
    assert [step.step for step in seen] == [1, 2, 3, 4, 5, 6]
    assert {step.steps for step in seen} == {6}
    assert all(step.pairs == 4 and step.pairs_per_second > 0 for step in seen)
    assert seen[0].eta_seconds > 0 == seen[-1].eta_seconds


def test_an_exception_of_the_callback_stops_training(encoder: Encoder) -> None:
    def stop(step: Step) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune.finetune(encoder, EXAMPLES, training_config(), on_step=stop)


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 100])
def test_the_learning_rate_warms_up_and_decays_and_is_never_zero(steps: int) -> None:
    factors = [finetune.learning_rate_factor(step, steps) for step in range(1, steps + 1)]

    peak = factors.index(1)
    assert peak == int(finetune.WARM_UP * steps)
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_non_finite_loss_ends_training(encoder: Encoder, weight: float) -> None:
    broken = [example(0, weight=weight), example(1)]

    with pytest.raises(TrainingError, match=r"step 1 of 5 .*TRAIN_LEARNING_RATE"):
        finetune.finetune(encoder, broken, training_config())


def test_examples_without_a_step_are_an_error(encoder: Encoder) -> None:
    with pytest.raises(TrainingError, match="The 1 pairs of this run"):
        finetune.finetune(encoder, [example(0)], training_config())


def test_the_loss_is_that_of_the_vectors_that_the_encoder_gives(tiny: Path) -> None:
    encoder = Encoder.load(
        tiny, preset=Preset("mean", "ask ", "read "), precision="float32", device="cpu"
    )
    (batch,) = finetune.plan(EXAMPLES, training_config(epochs=1, batch=8))
    masked = torch.zeros(8, len(batch.documents), dtype=torch.bool)
    expected = weighted_info_nce(
        torch.from_numpy(encoder.encode_queries(batch.queries)),
        torch.from_numpy(encoder.encode_documents(batch.documents)),
        torch.tensor(batch.positive),
        masked,
        torch.tensor(batch.weights),
        0.05,
    )

    report = finetune.finetune(encoder, EXAMPLES, training_config(epochs=1, batch=8, max_tokens=64))

    assert report.steps[0].loss == pytest.approx(expected.item(), rel=0.02)


def test_a_pair_of_lower_weight_has_a_smaller_effect(encoder: Encoder) -> None:
    def moved(weight: float) -> float:
        one = [example(0, weight=weight, negatives=(("n", "some other text"),)), example(1)]
        child = finetune.finetune(encoder, one, training_config(epochs=1, batch=2)).encoder
        text = [one[0].query, one[0].positive_text]
        query, positive = child.encode_queries(text)
        return float(np.dot(query, positive))

    assert moved(5.0) != moved(0.1)


def test_hyper_parameters_come_from_the_settings() -> None:
    settings = Settings(train_epochs=3, train_negatives=0, train_seed=5, index_max_tokens=99)

    found = finetune.config_of(settings, PRESETS["qwen3-embedding"])

    assert (found.epochs, found.negatives, found.seed, found.max_tokens) == (3, 0, 5, 99)
    assert (found.batch, found.learning_rate, found.temperature) == (32, 1e-6, 0.02)


def test_a_batch_whose_texts_are_encoded_twice_gives_the_same_child(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "computes_in_bfloat16", lambda device: False)
    one = finetune.finetune(encoder, EXAMPLES, training_config(epochs=2)).encoder
    other = finetune.finetune(encoder, EXAMPLES, training_config(epochs=2, tokens_kept=0)).encoder

    texts = [example.query for example in EXAMPLES]
    np.testing.assert_allclose(other.encode_queries(texts), one.encode_queries(texts), atol=1e-3)
    assert not any(module.training for module in other.model.modules())
