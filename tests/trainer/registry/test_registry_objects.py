"""What is different in object storage: on a real S3 server, and on one that misbehaves."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from structlog.testing import capture_logs

from schemas.errors import ConfigurationError, ModelError, RegistryError
from schemas.releases import Model
from schemas.settings import Settings
from tests.started_servers import on_s3
from tests.trainer.model_writing import files, left_over, objects
from trainer.registry.registry import Published, Registry
from trainer.registry.registry_objects import ObjectStorage

pytestmark = on_s3

ROOT = Path(__file__).parents[3]


@pytest.fixture
def settings(s3_url: str, tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", registry=s3_url)


@pytest.fixture
def published(settings: Settings) -> Published:
    return Registry.of(settings).publish("r", 1, files(a="1", b="2"))


@pytest.fixture
def elsewhere(settings: Settings, tmp_path: Path) -> Registry:
    """The same registry on another machine."""
    return Registry.of(settings.model_copy(update={"data_dir": tmp_path / "elsewhere"}))


def put(settings: Settings, name: str, content: bytes) -> None:
    """Write an object, as nobody should."""
    with fsspec.open(f"{settings.registry}/{name}", "wb") as file:
        file.write(content)


def files_of(model: Model) -> str:
    return f"{model.location}-{model.digest[:16]}"


# -- Killed publishers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "nth", "uploaded"),
    [("write r/v1-", 2, 1), ("create r/v1.json", 1, 2)],
    ids=["between two files", "between files and manifest"],
)
def test_of_a_killed_publisher_nothing_is_seen_and_the_next_one_publishes(
    settings: Settings, elsewhere: Registry, asked: str, nth: int, uploaded: int
) -> None:
    assert killed(settings, "half", asked, nth) == -signal.SIGKILL

    assert settings.registry_url
    written = [name for name in objects(settings.registry_url) if "/r/v1-" in name]
    assert len(written) == uploaded
    registry = Registry.of(settings)
    assert registry.published("r", 1) is None
    assert registry.versions("r") == []

    published = registry.publish("r", 1, files(a="whole", b="whole"))

    assert (elsewhere.open(published.model) / "b").read_text() == "whole"
    assert [name for name in left_over(settings) if "/registry-copies/" not in name] == []


def test_a_publisher_killed_right_after_the_manifest_has_published(
    settings: Settings, elsewhere: Registry
) -> None:
    assert killed(settings, "whole", "read r/v1.json", 2) == -signal.SIGKILL

    found = elsewhere.published("r", 1)
    assert found is not None
    assert (elsewhere.open(found.model) / "a").read_text() == "whole"
    assert elsewhere.publish("r", 1, files(a="whole", b="whole")) == found


def killed(settings: Settings, content: str, asked: str, nth: int) -> int:
    copies = settings.registry_dir
    command = ["-m", "tests.trainer.killed_publisher", str(settings.registry), str(copies)]
    done = subprocess.run([sys.executable, *command, content, asked, str(nth)], cwd=ROOT)
    return done.returncode


# -- Objects that are not what was published ----------------------------------------------------


def test_a_changed_object_is_noticed(
    settings: Settings, published: Published, elsewhere: Registry
) -> None:
    put(settings, f"{files_of(published.model)}/b", b"3")

    with pytest.raises(ModelError, match=r"/b in s3://.* is not what was published"):
        elsewhere.open(published.model)
    assert list((settings.data_dir.parent / "elsewhere").rglob("*/*")) == []


def test_a_missing_object_is_named(
    settings: Settings, published: Published, elsewhere: Registry
) -> None:
    filesystem, root = fsspec.core.url_to_fs(str(settings.registry))
    filesystem.rm(f"{root}/{files_of(published.model)}/b")

    with pytest.raises(ModelError, match=r"/b in s3://.* is missing"):
        elsewhere.open(published.model)


def test_another_manifest_than_the_records_is_noticed(
    settings: Settings, published: Published, elsewhere: Registry
) -> None:
    other = Registry.of(settings).publish("r", 2, files(a="other"))
    with fsspec.open(f"{settings.registry}/{other.model.location}.json", "rb") as file:
        put(settings, "r/v1.json", file.read())

    with pytest.raises(ModelError, match="not the one that was published"):
        elsewhere.open(published.model)


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b'{"format":"retrail-model/2","files":[]}',
        b'{"format":"retrail-model/1","files":[{"path":"../../x","size":1,"sha256":"%s"}]}'
        % (b"0" * 64),
        b'{"format":"retrail-model/1","files":[{"path":"/etc/x","size":1,"sha256":"%s"}]}'
        % (b"0" * 64),
    ],
    ids=["cut short", "of another format", "leaving its folder", "absolute"],
)
def test_a_damaged_manifest_is_named(
    settings: Settings, published: Published, elsewhere: Registry, content: bytes
) -> None:
    put(settings, "r/v1.json", content)

    with pytest.raises(ModelError, match=r"The manifest r/v1\.json in s3://.* is damaged"):
        elsewhere.open(published.model)


def test_a_copy_that_was_damaged_is_fetched_again(settings: Settings, published: Published) -> None:
    registry = Registry.of(settings)
    copy = registry.open(published.model)
    (copy / "a").write_text("damaged")

    assert (registry.open(published.model) / "a").read_text() == "1"


# -- Storage that cannot be used ----------------------------------------------------------------


def test_a_bucket_that_is_missing_is_named(settings: Settings) -> None:
    registry = Registry.of(settings.model_copy(update={"registry": "s3://no-such-bucket/models"}))

    for attempt in (
        lambda: registry.require(writing=False),
        lambda: registry.published("r", 1),
        lambda: registry.publish("r", 1, files(a="1")),
        lambda: registry.store_training_file("r", ()),
    ):
        with pytest.raises(RegistryError, match="there is no bucket 'no-such-bucket'"):
            attempt()


def test_a_refused_access_says_what_is_needed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, fresh_clients: None
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")

    with pytest.raises(
        RegistryError, match=r"denies the right to list models: .*AWS_ACCESS_KEY_ID"
    ):
        Registry.of(settings).require(writing=False)


def test_a_server_that_does_not_answer_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, fresh_clients: None
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    with pytest.raises(
        RegistryError, match=r"Cannot list models in the registry .*127\.0\.0\.1:9"
    ) as error:
        Registry.of(settings).require(writing=False)
    assert error.value.exit_status == 75


@pytest.fixture
def fresh_clients() -> Iterator[None]:
    """fsspec keeps a client, with the credentials that it found when it was made."""
    clients = fsspec.get_filesystem_class("s3")
    clients.clear_instance_cache()
    yield
    clients.clear_instance_cache()


def test_a_protocol_that_nothing_speaks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="RETRAIL_REGISTRY is nosuch://x"):
        Registry.of(Settings(data_dir=tmp_path, registry="nosuch://x"))


def test_a_trial_leaves_nothing(settings: Settings) -> None:
    Registry.of(settings).require(writing=True)

    assert settings.registry_url
    assert objects(settings.registry_url) == []


# -- Storage that misbehaves: in memory ---------------------------------------------------------


class Misbehaving(MemoryFileSystem):  # type: ignore[misc]
    """Object storage in memory whose conditional creation can be wrong."""

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
    yield Registry(ObjectStorage(f"misbehaving://{tmp_path.name}", tmp_path / "copies"))
    Misbehaving.store.clear()


def test_storage_that_ignores_conditions_is_told_of(
    in_memory: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Misbehaving, "ignores_conditions", True)

    with capture_logs() as said:
        for version in (1, 2):
            in_memory.publish("r", version, files(a="1"))

    warnings = [entry["event"] for entry in said if entry["log_level"] == "warning"]
    assert len(warnings) == 1
    assert "does not create exclusively" in warnings[0]


def test_a_manifest_whose_answer_was_lost_is_published(
    in_memory: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Misbehaving, "loses_answers", True)

    published = in_memory.publish("r", 1, files(a="1"))

    assert in_memory.published("r", 1) == published
