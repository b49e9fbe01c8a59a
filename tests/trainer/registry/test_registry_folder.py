import os
import time
from pathlib import Path

import pytest

from schemas.errors import ModelError
from schemas.settings import Settings
from tests.trainer.model_writing import files, left_over
from trainer.registry import model_files
from trainer.registry.registry import Registry


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry.of(settings)


@pytest.fixture
def home(settings: Settings) -> Path:
    """Of the retriever ``r``."""
    return settings.registry_dir / "r"


def test_only_folders_of_versions_are_versions(registry: Registry, home: Path) -> None:
    registry.publish("r", 1, files(a="1"))
    (home / "notes").mkdir()
    (home / "v2").touch()

    assert registry.versions("r") == [1]


def test_what_a_killed_process_left_is_removed_in_time(
    registry: Registry, settings: Settings, home: Path
) -> None:
    registry.publish("r", 1, files(a="1"))
    old, recent = (home / f".v1.{name}" for name in ("old", "recent"))
    for path in (old, recent):
        path.mkdir()
    before = time.time() - model_files.ABANDONED_SECONDS - 60
    os.utime(old, (before, before))

    registry.publish("r", 1, files(a="1"))

    assert left_over(settings) == [str(recent)]


def test_changed_files_are_noticed(registry: Registry, home: Path) -> None:
    published = registry.publish("r", 1, files(a="1", b="2"))
    assert registry.open(published.model) == home / "v1"

    (home / "v1" / "b").write_text("3")

    with pytest.raises(ModelError, match="not those that were published"):
        registry.open(published.model)


def test_a_model_card_that_cannot_be_written_says_why(
    registry: Registry, settings: Settings, home: Path
) -> None:
    published = registry.publish("r", 1, files(a="1"))
    (home / "v1.md").mkdir()

    with pytest.raises(ModelError, match="Cannot write the model card"):
        registry.write_card(published.model, "text")
    assert left_over(settings) == []


def test_a_registry_that_cannot_be_written_is_found_before_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    registry = Registry(tmp_path / "file" / "registry")

    registry.require(writing=False)
    with pytest.raises(ModelError, match="RETRAIL_REGISTRY or RETRAIL_DATA_DIR"):
        registry.require(writing=True)
