"""Vectors on disk: what is found again, the limit, and files that are broken."""

import multiprocessing
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from consumers.indexing.vectors import VectorStore, open_store
from schemas.settings import Settings

DIMENSION = 64
LIMIT = 1024 * 1024


def vectors(*names: str) -> dict[str, NDArray[np.float32]]:
    generator = np.random.default_rng(len(names))
    return {name: generator.normal(size=DIMENSION).astype(np.float32) for name in names}


def test_vectors_are_found_again_bit_for_bit_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "v.sqlite"
    kept = vectors(*map(str, range(1200)))
    store = VectorStore(path, LIMIT)
    store.of("model", DIMENSION).put(kept)
    store.close()
    found = VectorStore(path, LIMIT).of("model", DIMENSION).get([*kept, "other"])
    assert found.keys() == kept.keys()
    for name, vector in found.items():
        assert vector.dtype == np.float32
        np.testing.assert_array_equal(vector, kept[name])


def test_models_do_not_share_vectors(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "v.sqlite", LIMIT)
    store.of("one", DIMENSION).put(vectors("a"))
    assert store.of("two", DIMENSION).get(["a"]) == {}
    assert store.of("one", DIMENSION + 1).get(["a"]) == {}


def test_the_oldest_vectors_go_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    store = VectorStore(path, LIMIT)
    of_model = store.of("model", DIMENSION)
    names = [str(n) for n in range(20_000)]
    for start in range(0, len(names), 500):
        of_model.put(vectors(*names[start : start + 500]))
    found = of_model.get(names)
    assert names[-1] in found
    assert names[0] not in found
    assert len(found) > 1000
    store.close()
    assert path.stat().st_size < 1.5 * LIMIT


def test_a_file_that_is_no_database_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    path.write_bytes(b"no database" * 1000)
    of_model = VectorStore(path, LIMIT).of("model", DIMENSION)
    of_model.put(vectors("a"))
    assert of_model.get(["a"]).keys() == {"a"}


def test_a_store_that_fails_is_done_without(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    of_model = VectorStore(path, LIMIT).of("model", DIMENSION)
    of_model.put(vectors("a"))
    other = sqlite3.connect(path)
    other.execute("DROP TABLE vectors")
    other.commit()
    assert of_model.get(["a"]) == {}
    of_model.put(vectors("a"))
    assert of_model.get(["a"]) == {}


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    of_model = VectorStore(tmp_path / "file" / "v.sqlite", LIMIT).of("model", DIMENSION)
    of_model.put(vectors("a"))
    assert of_model.get(["a"]) == {}


def _put(path: Path, first: int) -> None:
    of_model = VectorStore(path, LIMIT).of("model", DIMENSION)
    for number in range(first, first + 40):
        of_model.put(vectors(str(number)))


def test_processes_write_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_put, args=(path, 40 * n)) for n in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    found = VectorStore(path, LIMIT).of("model", DIMENSION).get([str(n) for n in range(120)])
    assert len(found) == 120


@pytest.mark.parametrize("megabytes", [0, 1])
def test_it_can_be_switched_off(tmp_path: Path, megabytes: int) -> None:
    store = open_store(Settings(data_dir=tmp_path, vector_store_mb=megabytes))
    assert (store is not None) == bool(megabytes)
    assert (tmp_path / "vectors").exists() == bool(megabytes)
