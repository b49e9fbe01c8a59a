"""Killed publishers and damaged files: in a folder and on a real S3 server."""

import signal
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from schemas.errors import ModelError
from schemas.releases import Model
from schemas.settings import Settings
from tests.started_servers import on_s3
from tests.trainer.model_writing import files, files_of, left_over, names, put, read, versions
from trainer.registry.registry import Registry

pytestmark = on_s3

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("request_", "nth", "copied"),
    [("write r/v1-", 2, 1), ("create r/v1.json", 1, 2)],
    ids=["between two files", "between files and manifest"],
)
def test_files_of_a_killed_publisher_are_invisible_and_the_next_one_publishes(
    settings: Settings,
    registry: Registry,
    elsewhere: Registry,
    request_: str,
    nth: int,
    copied: int,
) -> None:
    assert killed(settings, "half", request_, nth) == -signal.SIGKILL

    assert len([name for name in names(settings) if name.startswith("r/v1-")]) == copied
    unseen_then_published(settings, registry, elsewhere)


@pytest.mark.parametrize("settings", ["folder"], indirect=True)
def test_a_manifest_in_a_folder_is_written_atomically(
    settings: Settings, registry: Registry, elsewhere: Registry
) -> None:
    # The first two hard links belong to the test of exclusive create.
    assert killed(settings, "half", "link", 3) == -signal.SIGKILL

    assert any(name.startswith("r/.v1.json.") for name in names(settings))
    unseen_then_published(settings, registry, elsewhere)


def unseen_then_published(settings: Settings, registry: Registry, elsewhere: Registry) -> None:
    assert registry.published("r", 1) is None
    assert versions(registry, "r") == []

    published = registry.publish("r", 1, files(a="whole", b="whole"))

    assert (elsewhere.open(published) / "b").read_text() == "whole"
    cache = str(settings.model_cache)
    assert [name for name in left_over(settings) if not name.startswith(cache)] == []


def test_a_publisher_killed_right_after_the_manifest_has_published(
    settings: Settings, elsewhere: Registry
) -> None:
    assert killed(settings, "whole", "read r/v1.json", 2) == -signal.SIGKILL

    found = elsewhere.published("r", 1)
    assert found is not None
    assert (elsewhere.open(found) / "a").read_text() == "whole"
    assert elsewhere.publish("r", 1, files(a="whole", b="whole")) == found


def killed(settings: Settings, content: str, request: str, nth: int) -> int:
    command = ["-m", "tests.trainer.killed_publisher", settings.registry_url]
    command += [str(settings.model_cache), content, request, str(nth)]
    return subprocess.run([sys.executable, *command], cwd=ROOT).returncode


def test_a_changed_file_is_an_error(
    settings: Settings, published: Model, elsewhere: Registry, tmp_path: Path
) -> None:
    changed = f"{files_of(settings, published)}/b"
    put(settings, changed, b"3")

    with pytest.raises(ModelError, match=f"{settings.registry_url} .*{changed} has changed"):
        elsewhere.open(published)
    copies = (tmp_path / "elsewhere").rglob("*")
    assert [path for path in copies if path.is_file() and path.suffix != ".lock"] == []


def test_a_missing_file_is_named(settings: Settings, published: Model, elsewhere: Registry) -> None:
    missing = f"{files_of(settings, published)}/b"
    filesystem, root = fsspec.core.url_to_fs(settings.registry_url)
    filesystem.rm(f"{root}/{missing}")

    with pytest.raises(ModelError, match=f"{settings.registry_url} .*{missing} is missing"):
        elsewhere.open(published)


def test_a_file_that_was_added_to_a_model_is_never_read(
    settings: Settings, published: Model, elsewhere: Registry
) -> None:
    added = f"{files_of(settings, published)}/adapter_config.json"
    put(settings, added, b"{}")

    if "://" in settings.registry_url:
        assert not (elsewhere.open(published) / "adapter_config.json").exists()
    else:
        with pytest.raises(ModelError, match=f"{added} does not belong to the model"):
            elsewhere.open(published)


def test_a_manifest_that_differs_from_the_record_is_an_error(
    settings: Settings, registry: Registry, published: Model, elsewhere: Registry
) -> None:
    other = registry.publish("r", 2, files(a="other"))
    put(settings, "r/v1.json", read(settings, f"{other.location}.json"))

    with pytest.raises(ModelError, match="differs from the published one"):
        elsewhere.open(published)


FOLDER = b'{"format":"retrail-model/1","folder":"v1-0123456789abcdef",'


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        FOLDER.replace(b"/1", b"/2") + b'"files":[]}',
        FOLDER.replace(b"v1-", b"../") + b'"files":[]}',
        FOLDER + b'"files":[{"path":"../../x","size":1,"sha256":"%s"}]}' % (b"0" * 64),
        FOLDER + b'"files":[{"path":"/etc/x","size":1,"sha256":"%s"}]}' % (b"0" * 64),
    ],
    ids=["cut short", "of another format", "folder outside", "leaving its folder", "absolute"],
)
def test_a_damaged_manifest_is_named(
    settings: Settings, published: Model, elsewhere: Registry, content: bytes
) -> None:
    put(settings, "r/v1.json", content)

    with pytest.raises(ModelError, match=rf"The manifest r/v1\.json in {settings.registry_url} is"):
        elsewhere.open(published)


@pytest.mark.parametrize("settings", ["s3"], indirect=True)
def test_a_cached_model_that_was_changed_is_downloaded_again(
    registry: Registry, published: Model
) -> None:
    copy = registry.open(published)
    (copy / "a").write_text("damaged")

    assert (registry.open(published) / "a").read_text() == "1"
