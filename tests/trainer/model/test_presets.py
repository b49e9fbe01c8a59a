"""Presets on tiny models of each architecture, against the models' READMEs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from schemas.settings import Settings
from tests.tiny_model import write_tiny_model, write_tiny_qwen3
from trainer.fit import finetune
from trainer.model import presets
from trainer.model.encoder import Encoder
from trainer.model.presets import PRESETS, SEARCH_TASK

TEXTS = ["ferry times", "a much longer text about the boats of the old harbour", "x"]


@pytest.fixture(scope="module")
def e5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of E5's architecture and name, without sentence-transformers files."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "e5-tiny-v2")


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of Qwen3-Embedding's architecture."""
    return write_tiny_qwen3(tmp_path_factory.mktemp("models") / "tiny")


def load(folder: Path, **options: Any) -> Encoder:
    preset = presets.preset("auto", folder, str(folder))
    return Encoder.load(folder, preset=preset, precision="float32", device="cpu", **options)


def states(folder: Path, texts: list[str], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token vectors and mask of texts padded together."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=side)  # type: ignore[no-untyped-call]
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        found: torch.Tensor = model(**inputs).last_hidden_state
    return found, inputs["attention_mask"]


def normalised(vectors: torch.Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = torch.nn.functional.normalize(vectors, dim=1).numpy()
    return found


def average_pool(folder: Path, texts: list[str]) -> NDArray[np.float32]:
    """README of E5."""
    found, mask = states(folder, texts, "right")
    found = found.masked_fill(~mask[..., None].bool(), 0.0)
    return normalised(found.sum(dim=1) / mask.sum(dim=1)[..., None])


def last_token_pool(folder: Path, texts: list[str]) -> NDArray[np.float32]:
    """README of Qwen3-Embedding: padded on the left, so the last position is the last token."""
    found, _ = states(folder, texts, "left")
    return normalised(found[:, -1])


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("intfloat/e5-base-v2", "e5"),
        ("intfloat/multilingual-e5-small", "e5"),
        ("intfloat/multilingual-e5-large-instruct", "e5-instruct"),
        ("sentence-transformers/all-MiniLM-L6-v2", "minilm"),
        ("me/phase5-finetuned", "minilm"),
        ("", "minilm"),
    ],
)
def test_the_family_of_a_bert_model_follows_from_its_name(
    tiny: Path, name: str, wanted: str
) -> None:
    assert presets.family(tiny, name) == wanted


def test_a_setting_overrides_the_family(tiny: Path, qwen3: Path) -> None:
    assert presets.preset("e5", tiny) is PRESETS["e5"]
    assert presets.preset("minilm", qwen3) is PRESETS["minilm"]


def test_e5_has_the_pooling_and_prompts_of_its_readme(e5: Path) -> None:
    encoder = load(e5)

    for vectors, prefix in (
        (encoder.encode_queries(TEXTS), "query: "),
        (encoder.encode_documents(TEXTS), "passage: "),
    ):
        expected = average_pool(e5, [prefix + text for text in TEXTS])
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_qwen3_embedding_has_the_pooling_and_prompts_of_its_readme(qwen3: Path) -> None:
    encoder = load(qwen3)

    queries = [f"Instruct: {SEARCH_TASK}\nQuery:{text}" for text in TEXTS]
    np.testing.assert_allclose(
        encoder.encode_queries(TEXTS), last_token_pool(qwen3, queries), atol=1e-5
    )
    np.testing.assert_allclose(
        encoder.encode_documents(TEXTS), last_token_pool(qwen3, TEXTS), atol=1e-5
    )


def test_truncation_keeps_the_last_token_of_a_decoder(qwen3: Path) -> None:
    encoder = load(qwen3, max_tokens=20)

    for row in encoder.tokenize([*TEXTS, ""], "query"):
        assert row[-1] == 0
        assert len(row) <= 20


@pytest.mark.parametrize(("name", "prefix"), [("e5", "query: "), ("qwen3", "Instruct: ")])
def test_a_saved_model_keeps_pooling_and_prompts(
    name: str, prefix: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    encoder = load(request.getfixturevalue(name))
    expected = encoder.encode_queries(TEXTS)

    encoder.save(tmp_path)

    again = Encoder.load(tmp_path, max_tokens=None, precision="float32", device="cpu")
    np.testing.assert_array_equal(again.encode_queries(TEXTS), expected)
    other = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(other.encode(TEXTS, prompt_name="query"), expected, atol=1e-5)
    assert str(other.prompts["query"]).startswith(prefix)
    # The trainer derives the family of a parent in the registry from its prompts.
    assert presets.preset("auto", tmp_path) is presets.preset(
        "auto", request.getfixturevalue(name), "e5"
    )


@pytest.mark.parametrize("name", ["e5", "e5-instruct", "qwen3-embedding"])
def test_hyper_parameters_are_those_of_lrat(name: str) -> None:
    config = finetune.config_of(Settings(), PRESETS[name])

    assert (config.learning_rate, config.temperature) == (1e-6, 0.02)
    assert (config.batch, config.negatives, config.epochs) == (32, 9, 2)
