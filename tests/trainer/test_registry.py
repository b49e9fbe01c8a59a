import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import InputError, ModelError
from schemas.releases import Model
from tests.trainer.labelled import example
from trainer import registry as registry_module
from trainer.encoder import Encoder
from trainer.registry import Published, Registry, digest_of


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def files(**contents: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name, content in contents.items():
            (folder / name).write_text(content)

    return write


def left_over(registry: Registry) -> list[str]:
    return [path.name for path in registry.root.rglob(".*")]


def test_an_encoder_is_published_and_loaded(registry: Registry, tiny: Path) -> None:
    encoder = Encoder.load(tiny, query_prefix="ask: ", max_tokens=40)

    published = registry.publish("r", 1, encoder.save)

    assert published.model.location == "r/v1"
    loaded = registry.load(published.model)
    assert loaded.layout == encoder.layout
    np.testing.assert_array_equal(loaded.encode_queries(["x"]), encoder.encode_queries(["x"]))
    assert left_over(registry) == []


def test_versions(registry: Registry) -> None:
    assert registry.versions("r") == []
    for version in (10, 2, 1):
        registry.publish("r", version, files(a=str(version)))
    (registry.root / "r" / "notes").mkdir()

    assert registry.versions("r") == [1, 2, 10]
    assert registry.published("r", 3) is None
    assert registry.published("r", 2) == registry.publish("r", 2, files(a="2"))


def test_publishing_the_same_again_changes_nothing(registry: Registry) -> None:
    first = registry.publish("r", 1, files(a="1"))

    assert registry.publish("r", 1, files(a="1")) == first
    assert left_over(registry) == []


def test_a_version_never_changes(registry: Registry) -> None:
    first = registry.publish("r", 1, files(a="1"))

    with pytest.raises(ModelError, match="with other files"):
        registry.publish("r", 1, files(a="2"))

    assert registry.published("r", 1) == first
    assert left_over(registry) == []


def test_a_failed_publication_leaves_nothing(registry: Registry) -> None:
    def write(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match=r"No space left on device.*Nothing was published"):
        registry.publish("r", 1, write)

    assert registry.published("r", 1) is None
    assert left_over(registry) == []


def test_nobody_sees_a_version_before_it_is_whole(registry: Registry) -> None:
    def write(folder: Path) -> None:
        (folder / "a").write_text("1")
        assert registry.published("r", 1) is None
        assert registry.versions("r") == []

    registry.publish("r", 1, write)

    assert registry.versions("r") == [1]


def test_of_two_that_race_both_get_the_one_that_is_there(registry: Registry) -> None:
    together = threading.Barrier(2)
    results: list[Published | ModelError] = []

    def publish(content: str) -> None:
        def write(folder: Path) -> None:
            (folder / "a").write_text(content)
            together.wait()

        try:
            results.append(registry.publish("r", 1, write))
        except ModelError as error:
            results.append(error)

    for contents, published in ((("same", "same"), 2), (("one", "two"), 1)):
        results.clear()
        threads = [threading.Thread(target=publish, args=(content,)) for content in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sum(isinstance(result, Published) for result in results) == published
        assert left_over(registry) == []
        (registry.root / "r" / "v1").rename(registry.root / "r" / f"gone-{published}")


def test_what_a_killed_process_left_is_removed_in_time(registry: Registry) -> None:
    registry.publish("r", 1, files(a="1"))
    old, recent = (registry.root / "r" / f".v1.{name}" for name in ("old", "recent"))
    for path in (old, recent):
        path.mkdir()
    before = time.time() - registry_module.ABANDONED_SECONDS - 60
    os.utime(old, (before, before))

    registry.publish("r", 1, files(a="1"))

    assert left_over(registry) == [recent.name]


def test_changed_files_are_noticed(registry: Registry) -> None:
    published = registry.publish("r", 1, files(a="1", b="2"))
    assert registry.open(published.model) == registry.root / "r" / "v1"

    (registry.root / "r" / "v1" / "b").write_text("3")

    with pytest.raises(ModelError, match="not those that were published"):
        registry.open(published.model)


@pytest.mark.parametrize("location", ["/etc", "../elsewhere", "r/../../elsewhere"])
def test_a_location_stays_inside(registry: Registry, location: str) -> None:
    with pytest.raises(ModelError, match="outside the registry"):
        registry.open(Model(location=location, digest="0" * 64))


def test_a_missing_model_says_where_it_was_looked_for(registry: Registry) -> None:
    with pytest.raises(ModelError, match=r"has no model r/v7.*RETRAIL_DATA_DIR"):
        registry.open(Model(location="r/v7", digest="0" * 64))


def test_a_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    digests = set()
    for number, contents in enumerate(({"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1", "b": ""})):
        folder = tmp_path / str(number)
        folder.mkdir()
        files(**contents)(folder)
        digests.add(digest_of(folder))

    assert len(digests) == 4
    (tmp_path / "0" / "link").symlink_to("/etc/passwd")
    with pytest.raises(ModelError, match="no links"):
        digest_of(tmp_path / "0")


def test_a_training_file_is_frozen_under_its_digest(registry: Registry) -> None:
    examples = (example(1), example(2, negatives=(("n", "no"),)))

    frozen = registry.store_training_file("r", examples)

    assert frozen.location == f"r/training/{frozen.digest}.jsonl"
    assert frozen.examples == 2
    assert registry.load_training_file(frozen) == examples
    assert registry.store_training_file("r", examples[::-1]) == frozen
    assert left_over(registry) == []


def test_another_training_file_than_the_manifests_is_noticed(registry: Registry) -> None:
    frozen, other = (registry.store_training_file("r", (example(n),)) for n in (1, 2))
    (registry.root / other.location).replace(registry.root / frozen.location)

    with pytest.raises(ModelError, match="not the one that the manifest names"):
        registry.load_training_file(frozen)
    with pytest.raises(InputError, match="Cannot read"):
        registry.load_training_file(other)


def test_a_model_card_lies_beside_the_model_and_can_be_written_anew(registry: Registry) -> None:
    published = registry.publish("r", 1, files(a="1"))

    for text in ("first", "second"):
        path = registry.write_card(published.model, text)

        assert (path, path.read_text()) == (registry.root / "r" / "v1.md", text)
    assert registry.published("r", 1) == published
    assert registry.open(published.model) == registry.root / "r" / "v1"
    assert registry.versions("r") == [1]
    assert left_over(registry) == []


def test_a_model_card_that_cannot_be_written_says_why(registry: Registry) -> None:
    published = registry.publish("r", 1, files(a="1"))
    (registry.root / "r" / "v1.md").mkdir()

    with pytest.raises(ModelError, match="Cannot write the model card"):
        registry.write_card(published.model, "text")
    assert left_over(registry) == []
