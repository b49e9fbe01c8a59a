"""What a folder must hold, and what of it is never run."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from schemas.errors import ModelError
from trainer.model.encoder import Encoder


def test_missing_weights_are_an_error(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "broken"))
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match=r"lacks 1 weights, encoder\.layer\.1"):
        Encoder.load(folder)


def test_a_models_own_code_is_never_run(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "custom"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")

    with pytest.raises(ModelError, match="never runs a model's own code"):
        Encoder.load(folder)
    assert not (tmp_path / "ran").exists()
