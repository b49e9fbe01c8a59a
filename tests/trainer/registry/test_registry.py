"""The registry in a folder and on a real S3 server."""

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem

from schemas.errors import InputError, ModelError, RegistryError
from schemas.releases import Model
from schemas.settings import Settings
from tests.started_servers import on_s3
from tests.trainer.labelled import example
from tests.trainer.model_writing import (
    file_size_limit,
    files,
    left_over,
    names,
    put,
    read,
    versions,
)
from trainer.model.encoder import Encoder
from trainer.model.presets import Preset
from trainer.registry.registry import Registry
from trainer.registry.storage import Storage

pytestmark = on_s3


def test_an_encoder_is_published_and_loaded(
    registry: Registry, elsewhere: Registry, settings: Settings, tiny: Path
) -> None:
    encoder = Encoder.load(tiny, preset=Preset(query_prefix="ask: "), max_tokens=40)

    published = registry.publish("r", 1, encoder.save)

    assert published.location == "r/v1"
    for place in (registry, elsewhere):
        loaded = place.load(published)
        assert (loaded.prompts, loaded.max_tokens) == (("ask: ", ""), 40)
        np.testing.assert_array_equal(loaded.encode_queries(["x"]), encoder.encode_queries(["x"]))
    assert left_over(settings) == []


def test_everything_in_the_folder_of_a_model_is_published(
    registry: Registry, elsewhere: Registry
) -> None:
    def write(folder: Path) -> None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text("{}")
        (folder / "tokenizer.bin").write_bytes(bytes(range(256)))
        (folder / "empty").touch()

    published = registry.publish("r/0123456789abcdef", 7, write)

    found = elsewhere.open(published)
    contents = {
        path.relative_to(found).as_posix(): path.read_bytes()
        for path in found.rglob("*")
        if path.is_file()
    }
    assert contents == {
        "1_Pooling/config.json": b"{}",
        "tokenizer.bin": bytes(range(256)),
        "empty": b"",
    }


def test_a_version_is_published_by_its_manifest(registry: Registry, settings: Settings) -> None:
    assert versions(registry, "r") == []
    for version in (10, 2, 1):
        registry.publish("r", version, files(a=str(version)))
    registry.publish("r/child", 3, files(a="3"))
    put(settings, "r/notes/v5.json", b"")
    put(settings, "r/v4", b"")

    assert versions(registry, "r") == [1, 2, 10]
    assert registry.published("r", 3) is None
    assert registry.published("r", 2) == registry.publish("r", 2, files(a="2"))
    assert registry.published("r", 10) is not None


def test_publishing_the_same_again_changes_nothing(registry: Registry, settings: Settings) -> None:
    first = registry.publish("r", 1, files(a="1"))
    before = names(settings)

    assert registry.publish("r", 1, files(a="1")) == first
    assert names(settings) == before
    assert left_over(settings) == []


def test_a_published_version_never_changes(registry: Registry, settings: Settings) -> None:
    first = registry.publish("r", 1, files(a="1"))

    with pytest.raises(ModelError, match="with other files"):
        registry.publish("r", 1, files(a="2"))

    assert registry.published("r", 1) == first
    assert (registry.open(first) / "a").read_text() == "1"
    assert left_over(settings) == []


def test_a_failed_publication_leaves_nothing(registry: Registry, settings: Settings) -> None:
    def write(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise OSError(28, "No space left on device")

    free = rf"\([\d,]+ MiB free in {settings.model_cache}\)"
    with pytest.raises(ModelError, match=rf"No space left on device {free}.*Nothing was published"):
        registry.publish("r", 1, write)

    assert registry.published("r", 1) is None
    assert left_over(settings) == []


@pytest.mark.parametrize("settings", ["folder"], indirect=True)
def test_a_full_disk_of_the_registry_is_named_and_nothing_is_left(
    registry: Registry, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = LocalFileSystem.put_file

    def full(self: LocalFileSystem, source: str, target: str, **named: Any) -> None:
        genuine(self, source, target, **named)
        if target.endswith("/b"):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(LocalFileSystem, "put_file", full)
        free = rf"\([\d,]+ MiB free in {registry.name}\)"
        with pytest.raises(RegistryError, match=f"No space left on device {free}") as error:
            registry.publish("r", 1, files(a="1", b="2"))

    assert registry.name in str(error.value)
    assert names(settings) == []
    assert left_over(settings) == []
    assert registry.publish("r", 1, files(a="1", b="2")) == registry.published("r", 1)


def test_a_version_is_invisible_until_it_is_complete(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = Storage.upload

    def unseen() -> None:
        assert registry.published("r", 1) is None
        assert versions(registry, "r") == []

    def write(folder: Path) -> None:
        (folder / "a").write_text("1")
        unseen()

    def upload(*args: Any) -> None:
        genuine(*args)
        unseen()

    monkeypatch.setattr(Storage, "upload", upload)
    registry.publish("r", 1, write)

    assert versions(registry, "r") == [1]


@pytest.mark.parametrize(
    ("contents", "winners"), [(("same", "same"), 2), (("one", "two"), 1)], ids=["same", "other"]
)
def test_two_racing_publishers_get_the_same_model(
    settings: Settings, contents: tuple[str, str], winners: int
) -> None:
    together = threading.Barrier(2)
    results: list[Model | ModelError] = []

    def publish(content: str) -> None:
        def write(folder: Path) -> None:
            (folder / "a").write_text(content)
            together.wait()

        try:
            results.append(Registry.of(settings).publish("r", 1, write))
        except ModelError as error:
            results.append(error)

    threads = [threading.Thread(target=publish, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    published = [result for result in results if isinstance(result, Model)]
    assert len(published) == winners
    assert {Registry.of(settings).published("r", 1)} == set(published)
    assert left_over(settings) == []


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_publisher_overtaken_during_its_upload_gets_the_published_model(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, interrupted: bool
) -> None:
    """The faster publisher removes the other one's files, also during its upload."""
    genuine = Storage.upload
    first: list[Model] = []

    def overtaken(*args: Any) -> None:
        genuine(*args)
        monkeypatch.setattr(Storage, "upload", genuine)
        first.append(Registry.of(settings).publish("r", 1, files(a="1")))
        if interrupted:
            raise FileNotFoundError("removed meanwhile")

    monkeypatch.setattr(Storage, "upload", overtaken)

    assert Registry.of(settings).publish("r", 1, files(a="1")) == first[0]
    assert left_over(settings) == []


@pytest.mark.parametrize("location", ["/etc", "../elsewhere", "r/../../elsewhere"])
def test_a_location_stays_inside(registry: Registry, location: str) -> None:
    with pytest.raises(ModelError, match="outside the registry"):
        registry.open(Model(location=location, digest="0" * 64))


def test_a_missing_model_names_the_registry(registry: Registry) -> None:
    with pytest.raises(ModelError, match=r"has no model r/v7.*RETRAIL_REGISTRY") as error:
        registry.open(Model(location="r/v7", digest="0" * 64))
    assert registry.name in str(error.value)


def test_a_training_file_is_frozen_under_its_digest(registry: Registry, settings: Settings) -> None:
    examples = (example(1), example(2, negatives=(("n", "no"),)))

    frozen = registry.store_training_file("r", examples)

    assert frozen.location == f"r/training/{frozen.digest}.jsonl"
    assert frozen.examples == 2
    assert registry.load_training_file(frozen) == examples
    assert registry.store_training_file("r", examples[::-1]) == frozen
    assert left_over(settings) == []


def test_a_full_disk_is_named_when_a_training_file_is_written(tmp_path: Path) -> None:
    """Case: full disk. The message has folder and free space, and no part of the file is left."""
    registry = Registry(str(tmp_path / "registry"), tmp_path / "cache")
    long = example(1, negatives=(("n", "no" * 5_000),))

    free = rf"\([\d,]+ MiB free in {tmp_path}/registry/r/training\)"
    with file_size_limit(4096), pytest.raises(RegistryError, match=free):
        registry.store_training_file("r", (long,))

    assert list((tmp_path / "registry/r/training").iterdir()) == []


def test_a_full_disk_is_named_when_a_model_is_downloaded(tmp_path: Path) -> None:
    """Case: full disk. The local disk is at fault, not the object storage."""
    model = Registry("memory://full-disk", tmp_path / "a").publish("r", 1, files(a="x" * 10_000))
    other = Registry("memory://full-disk", tmp_path / "b")

    free = rf"Cannot copy the model r/v1 into .*\([\d,]+ MiB free in {tmp_path}/b\)"
    with file_size_limit(4096), pytest.raises(ModelError, match=free) as found:
        other.open(model)

    assert not isinstance(found.value, RegistryError)
    assert list((tmp_path / "b").glob(".*")) == []
    assert (other.open(model) / "a").read_text() == "x" * 10_000


def test_a_missing_training_file_is_named(registry: Registry) -> None:
    frozen = registry.store_training_file("r", (example(1),))
    other = frozen.model_copy(update={"location": "r/training/other.jsonl"})

    with pytest.raises(InputError, match=r"Cannot read .*r/training/other\.jsonl"):
        registry.load_training_file(other)


def test_a_training_file_that_differs_from_the_manifest_is_an_error(registry: Registry) -> None:
    frozen, other = (registry.store_training_file("r", (example(n),)) for n in (1, 2))
    swapped = frozen.model_copy(update={"location": other.location})

    with pytest.raises(ModelError, match="not the one in the manifest"):
        registry.load_training_file(swapped)


def test_a_file_beside_a_model_is_not_in_its_digest_and_can_be_replaced(
    registry: Registry, settings: Settings
) -> None:
    published = registry.publish("r", 1, files(a="1"))

    for text in ("first", "second"):
        registry.write_beside(published, "md", text)
        assert read(settings, "r/v1.md") == text.encode()
    registry.write_beside(published, "steps.csv", "step,loss\n")

    assert registry.published("r", 1) == published
    assert versions(registry, "r") == [1]
    assert (registry.open(published) / "a").read_text() == "1"
    assert left_over(settings) == []


@pytest.mark.parametrize("settings", ["folder"], indirect=True)
def test_a_registry_can_be_copied_file_by_file_into_a_bucket_and_back(
    registry: Registry, settings: Settings, s3_url: str, tmp_path: Path
) -> None:
    models = [
        registry.publish(home, version, files(a=str(version)))
        for home, version in (("r", 1), ("r/0123456789abcdef", 2), ("r", 3))
    ]
    registry.write_beside(models[0], "md", "card")
    frozen = registry.store_training_file("r", (example(1),))
    bucket = Settings(data_dir=tmp_path / "on-s3", registry=s3_url)
    back = Settings(data_dir=tmp_path / "back-data", registry=tmp_path / "back")

    for source, target in ((settings, bucket), (bucket, back)):
        for name in names(source):
            put(target, name, read(source, name))

        copied = Registry.of(target)
        assert versions(copied, "r") == [1, 3]
        for model in models:
            assert (copied.open(model) / "a").read_text() == model.location[-1]
        assert copied.load_training_file(frozen) == (example(1),)
        assert read(target, "r/v1.md") == b"card"
        assert names(target) == names(settings)
        assert copied.publish("r", 3, files(a="3")) == models[2]
        assert names(target) == names(settings)


def test_a_folder_is_opened_in_place_and_object_storage_through_the_cache(
    registry: Registry, settings: Settings, published: Model
) -> None:
    folder = registry.open(published)

    if "://" in settings.registry_url:
        assert folder == settings.model_cache / published.digest
        fsspec.core.url_to_fs(settings.registry_url)[0].rm(settings.registry_url, recursive=True)
        assert registry.open(published) == folder
    else:
        assert folder.is_relative_to(settings.registry_url)
        assert list(settings.model_cache.iterdir()) == []


def test_a_file_that_retention_removed_is_not_taken_for_lost(registry: Registry) -> None:
    frozen = registry.store_training_file("r", (example(1),))
    assert abs((datetime.now(UTC) - registry.notes.modified(frozen.location)).total_seconds()) < 60
    assert registry.notes.erase(frozen.location, lambda content: content + b"\n", "e")
    assert registry.notes.expire(frozen.location)
    assert not registry.notes.expire(frozen.location)
    note = registry.notes.read(frozen.location)
    assert (note.expired, note.erasures) == (True, ("e",))
    assert registry.training_files("r") == []
    with pytest.raises(InputError, match="removed by retention"):
        registry.load_training_file(frozen)
    for call in (registry.notes.expire, lambda name: registry.notes.erase(name, bytes, "e")):
        with pytest.raises(ModelError, match="outside the registry"):
            call("../other.jsonl")
