"""The model of the first release."""

from pathlib import Path

from structlog.testing import capture_logs

from consumers.first_release import load_model
from schemas.settings import Settings
from tests.tiny_model import write_tiny_model


def test_a_models_prompts_override_a_setting_which_overrides_the_preset(tmp_path: Path) -> None:
    e5, saved = write_tiny_model(tmp_path / "e5-tiny-v2"), tmp_path / "saved"
    first = load_model(Settings(model=str(e5), index_query_prefix="ask: "))
    assert first.prompts == ("ask: ", "passage: ")
    first.save(saved)

    with capture_logs() as logged:
        encoder = load_model(
            Settings(model=str(saved), train_preset="qwen3-embedding", index_document_prefix="d: ")
        )

    assert encoder.prompts == ("ask: ", "passage: ")
    assert encoder.model[1].pooling_mode == "mean"
    assert "prefixes ignored: the model has prompts" in [line["event"] for line in logged]
