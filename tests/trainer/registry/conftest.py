"""A registry in a folder and on a real S3 server."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from schemas.releases import Model
from schemas.settings import Settings
from tests.trainer.model_writing import files
from trainer.registry.registry import Registry


@pytest.fixture(params=["folder", "s3"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Of an installation with an empty registry."""
    url = request.getfixturevalue("s3_url") if request.param == "s3" else tmp_path / "registry"
    return Settings(data_dir=tmp_path / "data", registry=url)


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry.of(settings)


@pytest.fixture
def published(registry: Registry) -> Model:
    return registry.publish("r", 1, files(a="1", b="2"))


@pytest.fixture
def elsewhere(settings: Settings, tmp_path: Path) -> Registry:
    """The same registry on another machine."""
    return Registry.of(settings.model_copy(update={"data_dir": tmp_path / "elsewhere"}))


@pytest.fixture
def fresh_clients() -> Iterator[None]:
    """fsspec keeps a client, with the credentials that it found when it was made."""
    clients = fsspec.get_filesystem_class("s3")
    clients.clear_instance_cache()
    yield
    clients.clear_instance_cache()
