import json
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ModelError
from trainer.model import layout
from trainer.model.layout import Layout
from trainer.model.pooling import Pooling


def write(folder: Path, **files: Any) -> Path:
    modules = [
        {"type": "sentence_transformers.models.Transformer", "path": ""},
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
    ]
    names = {
        "modules": "modules.json",
        "pooling": "1_Pooling/config.json",
        "sizes": "sentence_bert_config.json",
        "prompts": "config_sentence_transformers.json",
    }
    for name, content in {"modules": modules, **files}.items():
        path = folder / names[name]
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_what_is_written_is_read(tmp_path: Path, pooling: Pooling) -> None:
    wanted = Layout(pooling, 128, "query: ", "passage: ")

    layout.write(tmp_path, wanted, dimension=32)

    assert layout.read(tmp_path) == wanted


def test_a_plain_transformer_is_pooled_by_mean(tmp_path: Path) -> None:
    assert layout.read(tmp_path) == Layout("mean", None, "", "")
    assert layout.read(tmp_path, "last") == Layout("last", None, "", "")


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean"),
        ({"pooling_mode": "lasttoken", "embedding_dimension": 32}, "last"),
        ({"pooling_mode": ["cls"]}, "cls"),
    ],
)
def test_both_spellings_of_pooling(
    tmp_path: Path, config: dict[str, Any], pooling: Pooling
) -> None:
    assert layout.read(write(tmp_path, pooling=config)).pooling == pooling


def test_prompts_and_length(tmp_path: Path) -> None:
    write(
        tmp_path,
        pooling={"pooling_mode": "mean"},
        sizes={"max_seq_length": 512},
        prompts={"prompts": {"query": "Q: ", "document": "", "passage": "P: "}},
    )

    assert layout.read(tmp_path) == Layout("mean", 512, "Q: ", "P: ")


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"pooling": {"pooling_mode": "max"}}, "pools by max"),
        ({"pooling": {"pooling_mode": ["mean", "cls"]}}, r"mean \+ cls"),
        ({"modules": [{"type": "sentence_transformers.models.Dense", "path": "2"}]}, "Dense"),
        ({"sizes": {"do_lower_case": True}, "pooling": {"pooling_mode": "mean"}}, "lowers"),
        (
            {
                "pooling": {"pooling_mode": "mean", "include_prompt": False},
                "prompts": {"prompts": {"query": "Q: "}},
            },
            "include_prompt",
        ),
    ],
)
def test_what_would_give_other_vectors_is_refused(
    tmp_path: Path, files: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ModelError, match=complaint):
        layout.read(write(tmp_path, **files))


def test_an_explicit_pooling_overrules_an_unknown_one(tmp_path: Path) -> None:
    write(tmp_path, pooling={"pooling_mode": "max"})

    assert layout.read(tmp_path, "cls").pooling == "cls"


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("{")

    with pytest.raises(ModelError, match=r"modules\.json is not JSON"):
        layout.read(tmp_path)
