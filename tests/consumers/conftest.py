"""What tests of the index worker have in common."""

from pathlib import Path

import pytest

from schemas.settings import Settings
from schemas.topics import Topics
from tests.tiny_model import write_tiny_model


@pytest.fixture
def small(settings: Settings, topics: Topics, tmp_path: Path) -> Settings:
    """An installation whose first model is tiny; its topics are there."""
    model = write_tiny_model(tmp_path / "first", seed=1)
    return settings.model_copy(update={"model": str(model), "index_max_tokens": 64})
