"""LoRA on a tiny Qwen3."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from schemas.errors import ConfigurationError
from schemas.runs import TrainingConfig
from tests.tiny_model import write_tiny_qwen3
from tests.trainer.labelled import example, training_config
from trainer.fit import finetune
from trainer.model import presets
from trainer.model.encoder import Encoder

EXAMPLES = [
    example(i, positive_text=f"text {i}", negatives=((f"n{i}", f"{i} no"),)) for i in range(6)
]
TEXTS = [example.query for example in EXAMPLES]


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """A tiny Qwen3-Embedding in float32."""
    folder = write_tiny_qwen3(tmp_path_factory.mktemp("qwen3"))
    return Encoder.load(
        folder, preset=presets.preset("auto", folder), precision="float32", device="cpu"
    )


def config(**changes: Any) -> TrainingConfig:
    fields: dict[str, Any] = {
        "epochs": 3,
        "batch": 6,
        "learning_rate": 1e-2,
        "max_tokens": 128,
        "lora_rank": 2,
    }
    return training_config(**(fields | changes))


def test_the_child_is_a_plain_model_with_trained_matrices(qwen3: Encoder, tmp_path: Path) -> None:
    report = finetune.finetune(qwen3, EXAMPLES, config(epochs=8))

    assert report.steps[-1].loss < report.steps[0].loss
    child, parent = report.encoder.model.state_dict(), qwen3.model.state_dict()
    assert type(report.encoder.model[0].model) is type(qwen3.model[0].model)
    assert child.keys() == parent.keys()
    moved = {name for name in parent if not torch.equal(child[name], parent[name])}
    assert moved == {name for name in parent if name.endswith("_proj.weight")}
    assert not any(parameter.requires_grad for parameter in report.encoder.model.parameters())

    report.encoder.save(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert {f"0.model.{name}" for name in saved} == child.keys()
    assert not list(tmp_path.glob("adapter*"))
    again = Encoder.load(tmp_path, max_tokens=None, precision="float32", device="cpu")
    np.testing.assert_array_equal(again.encode_queries(TEXTS), report.encoder.encode_queries(TEXTS))


def test_untrained_and_merged_adapters_do_not_change_vectors(qwen3: Encoder) -> None:
    child = qwen3.copy()
    expected = qwen3.encode_queries(TEXTS)

    finetune.add_adapters(child.model, 2, seed=0)
    np.testing.assert_allclose(child.encode_queries(TEXTS), expected, atol=1e-6)
    trainable = {name for name, p in child.model.named_parameters() if p.requires_grad}
    assert trainable
    assert all("lora_" in name for name in trainable)

    with torch.no_grad():
        for name, parameter in child.model.named_parameters():
            if name in trainable:
                parameter.add_(0.05)
    trained = child.encode_queries(TEXTS)
    assert np.abs(trained - expected).max() > 1e-3
    finetune.merge_adapters(child.model)
    np.testing.assert_allclose(child.encode_queries(TEXTS), trained, atol=1e-5)


def test_the_child_depends_on_the_seed(qwen3: Encoder) -> None:
    def vectors(seed: int) -> Any:
        # The draws before do not matter.
        torch.rand(3)
        child = finetune.finetune(qwen3, EXAMPLES, config(seed=seed, epochs=1)).encoder
        return child.encode_queries(TEXTS)

    first = vectors(1)
    np.testing.assert_array_equal(vectors(1), first)
    assert np.abs(vectors(2) - first).max() > 0


def test_the_error_without_peft_names_the_extra(
    qwen3: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigurationError, match=r"retrail-server\[lora\]"):
        finetune.finetune(qwen3, EXAMPLES, config())
