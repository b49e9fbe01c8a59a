"""Supported models, required files, and refused code."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import (
    LayerNorm,
    Pooling,
    WeightedLayerPooling,
)

from schemas.errors import ModelError
from tests.tiny_model import write_tiny_model
from tests.trainer.model_writing import file_size_limit
from trainer.model.encoder import Encoder
from trainer.model.location import locate


def saved(folder: Path, *modules: Any) -> Path:
    SentenceTransformer(modules=list(modules), device="cpu").save(str(folder))
    return folder


def edited(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture
def plain(tiny: Path, tmp_path: Path) -> Path:
    """A folder of transformers."""
    return Path(shutil.copytree(tiny, tmp_path / "plain"))


def test_minilm_needs_no_download() -> None:
    assert (locate("minilm") / "model.safetensors").is_file()


def test_a_folder_is_located_as_it_is(tiny: Path) -> None:
    assert locate(str(tiny)) == tiny


@pytest.mark.parametrize("name", ["/nowhere/model", "./nowhere", "a/b/c", "~/nowhere", __file__])
def test_a_missing_folder_is_an_error_with_a_remedy(name: str) -> None:
    with pytest.raises(ModelError, match=r"no model folder .* Set RETRAIL_MODEL to minilm"):
        locate(name)


def test_an_unknown_name_on_the_hub_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(ModelError, match=r"nobody/nothing.*set RETRAIL_MODEL to minilm"):
        locate("nobody/nothing")


@pytest.mark.parametrize("name", ["no body/no thing", " "])
def test_a_malformed_name_is_an_error(name: str) -> None:
    with pytest.raises(ModelError, match="Check the name"):
        locate(name)


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"modules\.json and config\.json are missing"):
        Encoder.load(tmp_path)


def test_pickled_weights_are_refused(plain: Path) -> None:
    torch.save(load_file(plain / "model.safetensors"), plain / "pytorch_model.bin")
    (plain / "model.safetensors").unlink()

    with pytest.raises(ModelError, match=r"pytorch_model\.bin.*only safetensors"):
        Encoder.load(plain)


def test_pickled_weights_of_a_small_module_are_refused(tiny: Path, tmp_path: Path) -> None:
    from sentence_transformers.base.modules import Dense

    folder = saved(tmp_path / "saved", Transformer(str(tiny)), Pooling(32), Dense(32, 16))
    weights = folder / "2_Dense" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()

    with pytest.raises(ModelError, match=r"2_Dense has its weights only as pytorch_model\.bin"):
        Encoder.load(folder)


def test_a_folder_without_weights_is_an_error(plain: Path) -> None:
    (plain / "model.safetensors").unlink()

    with pytest.raises(ModelError, match="contains no weights"):
        Encoder.load(plain)


def test_an_adapter_without_its_base_model_is_refused(plain: Path) -> None:
    (plain / "adapter_config.json").write_text("{}")

    with pytest.raises(ModelError, match="PEFT adapter without its base model"):
        Encoder.load(plain)


def test_missing_weights_are_an_error(plain: Path) -> None:
    weights = load_file(plain / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, plain / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match=r"lacks 1 weights, such as encoder\.layer\.1"):
        Encoder.load(plain)


def test_missing_weights_behind_a_router_are_an_error(tiny: Path, tmp_path: Path) -> None:
    query, document = ([Transformer(str(tiny)), Pooling(32)] for _ in range(2))
    folder = saved(tmp_path / "saved", Router.for_query_document(query, document))
    file = folder / "document_0_Transformer" / "model.safetensors"
    weights = load_file(file)
    del weights["encoder.layer.0.output.dense.weight"]
    save_file(weights, file, metadata={"format": "pt"})

    with pytest.raises(ModelError, match=r"document_0_Transformer lacks 1 weights"):
        Encoder.load(folder)


def test_a_models_own_code_is_never_run(plain: Path, tmp_path: Path) -> None:
    edited(
        plain / "config.json",
        model_type="own",
        auto_map={"AutoConfig": "own.C", "AutoModel": "own.M"},
    )
    (plain / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")

    with pytest.raises(ModelError, match="never runs a model's own code"):
        Encoder.load(plain)
    assert not (tmp_path / "ran").exists()


def test_a_custom_module_is_refused_by_name(tiny: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved", Transformer(str(tiny)), Pooling(32), Normalize())
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = "own.Normalize"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")

    with pytest.raises(ModelError, match=r"a module own\.Normalize\. Retrail supports"):
        Encoder.load(folder)
    assert not (tmp_path / "ran").exists()


def test_other_modules_are_refused_by_name(tiny: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved", Transformer(str(tiny)), Pooling(32), LayerNorm(32))

    with pytest.raises(ModelError, match=r"LayerNorm\. Retrail supports Transformer, Pooling"):
        Encoder.load(folder)


def test_other_modules_behind_a_router_are_refused_by_name(tiny: Path, tmp_path: Path) -> None:
    transformer = Transformer(str(tiny))
    query = [transformer, WeightedLayerPooling(32, num_hidden_layers=2), Pooling(32)]
    router = Router.for_query_document(query, [transformer, Pooling(32)])
    folder = saved(tmp_path / "saved", router)

    with pytest.raises(ModelError, match="WeightedLayerPooling"):
        Encoder.load(folder)


@pytest.mark.parametrize("mode", ["max", "weightedmean", ("mean", "cls")])
def test_other_poolings_are_refused_by_name(tiny: Path, tmp_path: Path, mode: Any) -> None:
    folder = saved(tmp_path / "saved", Transformer(str(tiny)), Pooling(32, mode))

    name = mode if isinstance(mode, str) else "mean"
    with pytest.raises(ModelError, match=f"Pooling by .*{name}"):
        Encoder.load(folder)


def test_other_routes_are_refused_by_name(tiny: Path, tmp_path: Path) -> None:
    routes = {"text": [Transformer(str(tiny)), Pooling(32)], "code": [Transformer(str(tiny))]}
    folder = saved(tmp_path / "saved", Router(routes, default_route="text"))

    with pytest.raises(ModelError, match="Router of text, code"):
        Encoder.load(folder)


def test_another_first_module_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved", Transformer(str(tiny)), Pooling(32), Normalize())
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([modules[2], modules[0], modules[1]]))

    with pytest.raises(ModelError, match="Normalize as its first module"):
        Encoder.load(folder)


def test_a_chat_transformer_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved", Transformer(str(tiny)), Pooling(32))
    way = {"method": "forward", "method_output_name": "last_hidden_state"}
    edited(folder / "sentence_bert_config.json", modality_config={"text": way, "message": way})

    with pytest.raises(ModelError, match="Transformer of text, message"):
        Encoder.load(folder)


def test_an_invalid_file_is_named(plain: Path) -> None:
    (plain / "modules.json").write_text("{")

    with pytest.raises(ModelError, match=r"modules\.json is not JSON"):
        Encoder.load(plain)


def test_a_full_disk_is_named_with_the_folder_and_the_free_space(tmp_path: Path) -> None:
    """Case: ``ulimit -f``, or a full disk, while a model is written."""
    encoder = Encoder.load(write_tiny_model(tmp_path / "model"), max_tokens=32)
    folder = tmp_path / "out"
    folder.mkdir()
    named = pytest.raises(ModelError, match=rf"[\d,]+ MiB free in {folder}\)")
    with file_size_limit(4096), named as found:
        encoder.save(folder)
    assert found.value.path == folder
