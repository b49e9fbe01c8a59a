"""Storage that cannot be used or misbehaves."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from schemas.errors import ConfigurationError, RegistryError
from schemas.settings import Settings
from tests.started_servers import on_s3
from tests.trainer.model_writing import files, left_over, names
from trainer.registry.registry import Registry

pytestmark = on_s3

in_folder = pytest.mark.parametrize("settings", ["folder"], indirect=True)
in_bucket = pytest.mark.parametrize("settings", ["s3"], indirect=True)


@in_bucket
def test_a_missing_bucket_is_named(settings: Settings) -> None:
    registry = Registry.of(settings.model_copy(update={"registry": "s3://no-such-bucket/models"}))

    for attempt in (
        lambda: registry.require(writing=False),
        lambda: registry.published("r", 1),
        lambda: registry.publish("r", 1, files(a="1")),
        lambda: registry.store_training_file("r", ()),
    ):
        with pytest.raises(RegistryError, match="there is no bucket 'no-such-bucket'"):
            attempt()


@in_bucket
def test_a_denied_access_lists_what_is_needed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, fresh_clients: None
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")

    with pytest.raises(
        RegistryError, match=r"denies permission to list models: .*AWS_SECRET_ACCESS_KEY"
    ):
        Registry.of(settings).require(writing=False)


@in_bucket
def test_an_unreachable_server_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, fresh_clients: None
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    with pytest.raises(
        RegistryError, match=r"Cannot list models in the registry .*127\.0\.0\.1:9"
    ) as error:
        Registry.of(settings).require(writing=False)
    assert error.value.exit_status == 69
    assert REGISTRY.get_sample_value("retrail_dependency_up", {"dependency": "registry"}) == 0


def test_a_protocol_that_no_library_supports_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="RETRAIL_REGISTRY is nosuch://x"):
        Registry.of(Settings(data_dir=tmp_path, registry="nosuch://x"))


def test_an_unusable_folder_is_found_before_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    registry = Registry(str(tmp_path / "file" / "registry"), tmp_path / "cache")

    for writing in (False, True):
        with pytest.raises(RegistryError, match="RETRAIL_REGISTRY or RETRAIL_DATA_DIR") as error:
            registry.require(writing=writing)
        assert f"{tmp_path}/file/registry" in str(error.value)


def test_a_folder_that_does_not_exist_yet_can_be_read_and_written(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path / "some" / "registry"), tmp_path / "cache")

    registry.require(writing=False)
    assert not (tmp_path / "some").exists()
    registry.require(writing=True)
    assert REGISTRY.get_sample_value("retrail_dependency_up", {"dependency": "registry"}) == 1


def test_testing_exclusive_create_leaves_no_file(registry: Registry, settings: Settings) -> None:
    registry.require(writing=True)

    assert names(settings) == []


@in_folder
def test_a_file_that_cannot_be_written_is_named(registry: Registry, settings: Settings) -> None:
    published = registry.publish("r", 1, files(a="1"))
    (Path(settings.registry_url) / "r" / "v1.md").mkdir()

    with pytest.raises(RegistryError, match=r"Cannot write r/v1\.md in the registry /"):
        registry.write_beside(published, "md", "text")
    assert left_over(settings) == []


@in_folder
def test_a_folder_without_hard_links_works_with_a_warning(
    registry: Registry, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: Path, target: Path) -> None:
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(source))

    monkeypatch.setattr(os, "link", link)

    with capture_logs() as logged:
        published = registry.publish("r", 1, files(a="1"))

    assert any("does not support exclusive create" in entry["event"] for entry in logged)
    assert (registry.open(published) / "a").read_text() == "1"
    assert left_over(settings) == []


class Misbehaving(MemoryFileSystem):  # type: ignore[misc]
    """Object storage in memory with a defective exclusive create."""

    protocol = "misbehaving"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    ignores_conditions = False
    loses_answers = False

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **named: Any) -> None:
        if self.ignores_conditions:
            mode = "overwrite"
        super().pipe_file(path, value, mode=mode, **named)
        if self.loses_answers and path.endswith("v1.json"):
            raise OSError("the connection was closed")


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Registry]:
    fsspec.register_implementation("misbehaving", Misbehaving, clobber=True)
    yield Registry(f"misbehaving://{tmp_path.name}", tmp_path / "cache")
    Misbehaving.store.clear()


def test_storage_that_ignores_conditions_gives_one_warning(
    in_memory: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Misbehaving, "ignores_conditions", True)

    with capture_logs() as logged:
        for version in (1, 2):
            in_memory.publish("r", version, files(a="1"))

    warnings = [entry["event"] for entry in logged if entry["log_level"] == "warning"]
    assert len(warnings) == 1
    assert "does not support exclusive create" in warnings[0]


def test_a_manifest_whose_acknowledgement_was_lost_is_published(
    in_memory: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Misbehaving, "loses_answers", True)

    published = in_memory.publish("r", 1, files(a="1"))

    assert in_memory.published("r", 1) == published
