import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.trainer.model_writing import files
from trainer.registry.cache import KEPT, KEPT_SECONDS, ModelCache
from trainer.registry.manifest import digest_of


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "cache")


def keep(cache: ModelCache, content: str) -> str:
    """Write a model into the cache, and return its digest."""
    with cache.writing() as folder:
        files(a=content)(folder)
        digest = digest_of(folder)
        cache.open(digest, folder.rename)
    return digest


def models(cache: ModelCache) -> set[str]:
    return {path.name for path in cache.folder.iterdir() if path.is_dir()}


def age(cache: ModelCache, name: str, seconds: float = KEPT_SECONDS + 60) -> None:
    then = time.time() - seconds
    os.utime(cache.folder / name, (then, then))


def no_download(folder: Path) -> None:
    raise AssertionError(f"nothing to download into {folder}")


def test_a_model_is_downloaded_once(cache: ModelCache) -> None:
    digest = keep(cache, "1")
    assert (cache.open(digest, no_download) / "a").read_text() == "1"

    other = ModelCache(cache.folder.with_name("other"))
    for download in (files(a="1"), no_download):
        assert (other.open(digest, download) / "a").read_text() == "1"
    assert models(other) == {digest}


def test_a_failed_download_leaves_nothing(cache: ModelCache) -> None:
    def fail(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        cache.open("0" * 64, fail)

    assert models(cache) == set()


def test_a_model_that_was_changed_on_the_disk_is_downloaded_again(cache: ModelCache) -> None:
    changed, linked = keep(cache, "1"), keep(cache, "2")
    (cache.folder / changed / "a").write_text("x")
    (cache.folder / linked / "b").symlink_to("/etc/passwd")

    for digest, content in ((changed, "1"), (linked, "2")):
        copy = cache.open(digest, files(a=content))
        assert [path.name for path in copy.iterdir()] == ["a"]
        assert (copy / "a").read_text() == content


def test_old_models_are_pruned_except_those_opened_last(cache: ModelCache) -> None:
    digests = [keep(cache, str(number)) for number in range(KEPT + 2)]
    for number, digest in enumerate(reversed(digests)):
        age(cache, digest, KEPT_SECONDS + 60 + number)
    # Opening the oldest makes it the latest.
    cache.open(digests[0], no_download)

    new = keep(cache, "new")

    assert models(cache) == {new, digests[0], digests[-1], digests[-2]}
    assert len(models(cache)) == KEPT


def test_models_opened_within_a_day_stay(cache: ModelCache) -> None:
    digests = {keep(cache, str(number)) for number in range(KEPT + 3)}

    assert models(cache) == digests


def test_a_model_that_another_process_is_opening_stays(cache: ModelCache) -> None:
    digests = [keep(cache, str(number)) for number in range(KEPT + 2)]
    for number, digest in enumerate(reversed(digests)):
        age(cache, digest, KEPT_SECONDS + 60 + number)

    with FileLock(cache.folder / f"{digests[0]}.lock"):
        keep(cache, "new")
        assert digests[0] in models(cache)

    keep(cache, "newer")
    assert digests[0] not in models(cache)


def test_folders_of_killed_processes_are_removed_after_a_day(cache: ModelCache) -> None:
    cache.folder.mkdir()
    for name in (".old", ".recent"):
        (cache.folder / name).mkdir()
    age(cache, ".old")

    digest = keep(cache, "1")

    assert models(cache) == {digest, ".recent"}


PRUNER = """
import pathlib, sys
from trainer.registry.cache import ModelCache

cache = ModelCache(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
with cache.writing():
    pass
"""


def test_processes_can_prune_at_once(cache: ModelCache) -> None:
    """Case: two workers of a machine that follow the same release (FileNotFoundError)."""
    cache.folder.mkdir()
    for number in range(400):
        name = f"{number:064x}"
        (cache.folder / name).mkdir()
        (cache.folder / name / "a").write_text("1")
        age(cache, name, KEPT_SECONDS + 60 + number)
    command = [sys.executable, "-c", PRUNER, str(cache.folder)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    pruners = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]
    for pruner in pruners:
        assert pruner.stdout.readline() == "ready\n"

    for pruner in pruners:
        pruner.stdin.write("\n")
        pruner.stdin.flush()
    errors = [pruner.communicate(timeout=60)[1] for pruner in pruners]

    assert [pruner.returncode for pruner in pruners] == [0, 0], errors
    assert models(cache) == {f"{number:064x}" for number in range(KEPT)}


def test_a_model_is_downloaded_once_by_threads_that_open_it_together(cache: ModelCache) -> None:
    digest = keep(ModelCache(cache.folder.with_name("other")), "1")
    downloads: list[Path] = []

    def download(folder: Path) -> None:
        downloads.append(folder)
        files(a="1")(folder)

    found = at_once(lambda: ModelCache(cache.folder).open(digest, download), 8)

    assert found == [cache.folder / digest] * 8
    assert len(downloads) == 1


def at_once(act: Callable[[], Any], times: int) -> list[Any]:
    """Results of ``act`` in this number of threads, which start together."""
    together = threading.Barrier(times)
    results: list[Any] = []

    def run() -> None:
        together.wait()
        results.append(act())

    threads = [threading.Thread(target=run) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
