"""Fixtures of the index worker's tests."""

from pathlib import Path

import pytest

from schemas.settings import Settings
from schemas.topics import Topics
from tests.tiny_model import write_tiny_model


@pytest.fixture
def small(settings: Settings, topics: Topics, tmp_path: Path) -> Settings:
    """An installation with topics and a tiny first model."""
    model = write_tiny_model(tmp_path / "first", seed=1)
    return settings.model_copy(update={"model": str(model), "index_max_tokens": 64})
