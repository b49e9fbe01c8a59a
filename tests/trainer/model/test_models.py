from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from schemas.errors import ModelError
from trainer.model.models import locate


def test_minilm_needs_no_download() -> None:
    assert (locate("minilm") / "model.safetensors").is_file()


def test_a_folder_is_itself(tiny: Path) -> None:
    assert locate(str(tiny)) == tiny


@pytest.mark.parametrize("name", ["/nowhere/model", "./nowhere", "a/b/c", "~/nowhere", " "])
def test_a_missing_folder_says_what_to_set(name: str) -> None:
    with pytest.raises(ModelError, match=r"no model folder .* Set RETRAIL_MODEL to minilm"):
        locate(name)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("")

    with pytest.raises(ModelError, match="is a file"):
        locate(str(tmp_path / "weights"))


def test_a_name_that_the_hub_does_not_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(ModelError, match=r"nobody/nothing.*set RETRAIL_MODEL to minilm"):
        locate("nobody/nothing")


def test_a_malformed_name() -> None:
    with pytest.raises(ModelError, match="Check the name"):
        locate("no body/no thing")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        locate(str(tmp_path))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "pytorch_model.bin")

    with pytest.raises(ModelError, match=r"pytorch_model\.bin.*safetensors only"):
        locate(str(tmp_path))


def test_a_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(ModelError, match="holds no weights"):
        locate(str(tmp_path))
