"""What every registry does, in a folder and on a real S3 server."""

import threading
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import InputError, ModelError
from schemas.releases import Model
from schemas.settings import Settings
from tests.started_servers import on_s3
from tests.trainer.labelled import example
from tests.trainer.model_writing import files, left_over
from trainer.model.encoder import Encoder
from trainer.registry.registry import Published, Registry

pytestmark = on_s3


@pytest.fixture(params=["folder", "s3"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Of an installation with an empty registry."""
    url = request.getfixturevalue("s3_url") if request.param == "s3" else None
    return Settings(data_dir=tmp_path / "data", registry=url)


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry.of(settings)


def on_another_machine(settings: Settings, tmp_path: Path) -> Registry:
    """The same registry; in object storage, without the copies of the first machine."""
    if settings.registry_url is None:
        return Registry.of(settings)
    return Registry.of(settings.model_copy(update={"data_dir": tmp_path / "another"}))


def test_an_encoder_is_published_and_loaded(
    registry: Registry, settings: Settings, tiny: Path, tmp_path: Path
) -> None:
    encoder = Encoder.load(tiny, query_prefix="ask: ", max_tokens=40)

    published = registry.publish("r", 1, encoder.save)

    assert published.model.location == "r/v1"
    for place in (registry, on_another_machine(settings, tmp_path)):
        loaded = place.load(published.model)
        assert (loaded.prompts, loaded.max_tokens) == (("ask: ", ""), 40)
        np.testing.assert_array_equal(loaded.encode_queries(["x"]), encoder.encode_queries(["x"]))
    assert left_over(settings) == []


def test_everything_in_the_folder_of_a_model_is_carried(
    registry: Registry, settings: Settings, tmp_path: Path
) -> None:
    def write(folder: Path) -> None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text("{}")
        (folder / "training-curve.png").write_bytes(bytes(range(256)))
        (folder / "empty").touch()

    published = registry.publish("r/0123456789abcdef", 7, write)

    found = on_another_machine(settings, tmp_path).open(published.model)
    contents = {
        path.relative_to(found).as_posix(): path.read_bytes()
        for path in found.rglob("*")
        if path.is_file()
    }
    assert contents == {
        "1_Pooling/config.json": b"{}",
        "training-curve.png": bytes(range(256)),
        "empty": b"",
    }


def test_versions(registry: Registry, settings: Settings) -> None:
    assert registry.versions("r") == []
    for version in (10, 2, 1):
        registry.publish("r", version, files(a=str(version)))
    registry.publish("r/child", 3, files(a="3"))

    assert registry.versions("r") == [1, 2, 10]
    assert registry.published("r", 3) is None
    assert registry.published("r", 2) == registry.publish("r", 2, files(a="2"))
    assert left_over(settings) == []


def test_publishing_the_same_again_changes_nothing(registry: Registry, settings: Settings) -> None:
    first = registry.publish("r", 1, files(a="1"))

    assert registry.publish("r", 1, files(a="1")) == first
    assert left_over(settings) == []


def test_a_version_never_changes(registry: Registry, settings: Settings) -> None:
    first = registry.publish("r", 1, files(a="1"))

    with pytest.raises(ModelError, match="with other files"):
        registry.publish("r", 1, files(a="2"))

    assert registry.published("r", 1) == first
    assert (registry.open(first.model) / "a").read_text() == "1"
    assert left_over(settings) == []


def test_a_failed_publication_leaves_nothing(registry: Registry, settings: Settings) -> None:
    def write(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match=r"No space left on device.*Nothing was published"):
        registry.publish("r", 1, write)

    assert registry.published("r", 1) is None
    assert left_over(settings) == []


def test_nobody_sees_a_version_before_it_is_whole(registry: Registry) -> None:
    def write(folder: Path) -> None:
        (folder / "a").write_text("1")
        assert registry.published("r", 1) is None
        assert registry.versions("r") == []

    registry.publish("r", 1, write)

    assert registry.versions("r") == [1]


@pytest.mark.parametrize(
    ("contents", "winners"), [(("same", "same"), 2), (("one", "two"), 1)], ids=["same", "other"]
)
def test_of_two_that_race_both_get_the_one_that_is_there(
    settings: Settings, contents: tuple[str, str], winners: int
) -> None:
    together = threading.Barrier(2)
    results: list[Published | ModelError] = []

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

    published = [result for result in results if isinstance(result, Published)]
    assert len(published) == winners
    assert {Registry.of(settings).published("r", 1)} == set(published)
    assert left_over(settings) == []


@pytest.mark.parametrize("location", ["/etc", "../elsewhere", "r/../../elsewhere"])
def test_a_location_stays_inside(registry: Registry, location: str) -> None:
    with pytest.raises(ModelError, match="outside the registry"):
        registry.open(Model(location=location, digest="0" * 64))


def test_a_missing_model_says_where_it_was_looked_for(registry: Registry) -> None:
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


def test_a_missing_training_file_is_named(registry: Registry) -> None:
    frozen = registry.store_training_file("r", (example(1),))
    other = frozen.model_copy(update={"location": "r/training/other.jsonl"})

    with pytest.raises(InputError, match=r"Cannot read .*r/training/other\.jsonl"):
        registry.load_training_file(other)


def test_another_training_file_than_the_manifests_is_noticed(registry: Registry) -> None:
    frozen, other = (registry.store_training_file("r", (example(n),)) for n in (1, 2))
    swapped = frozen.model_copy(update={"location": other.location})

    with pytest.raises(ModelError, match="not the one that the manifest names"):
        registry.load_training_file(swapped)


def test_a_model_card_lies_beside_the_model_and_can_be_written_anew(
    registry: Registry, settings: Settings
) -> None:
    published = registry.publish("r", 1, files(a="1"))

    for text in ("first", "second"):
        where = registry.write_card(published.model, text)

        assert where == f"{registry.name}/r/v1.md"
        assert read(settings, "r/v1.md") == text
    assert registry.published("r", 1) == published
    assert registry.versions("r") == [1]
    assert left_over(settings) == []


def read(settings: Settings, location: str) -> str:
    if settings.registry_url is None:
        return (settings.registry_dir / location).read_text()
    import fsspec

    with fsspec.open(f"{settings.registry_url}/{location}", "rt") as file:
        text: str = file.read()
    return text
