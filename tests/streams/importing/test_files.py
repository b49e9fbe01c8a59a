"""Files: found, decompressed, read record by record."""

import gzip
import json
import tracemalloc

import pytest

from retrail_runtime.files import zstd
from schemas.errors import InputError, InvalidRecordError
from streams.importing import files
from streams.importing.files import files_of, loads, records_of


def values(path):
    """Records; what is broken as the text of its error."""
    return [
        str(value) if isinstance(value, InvalidRecordError) else value
        for _, value in records_of(path)
    ]


def places(path):
    return [place.removeprefix(str(path)) for place, _ in records_of(path)]


LINES = b'{"a": 1}\n\n{"a": 2}\r\n'


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a": 1}', [{"a": 1}]),
        (b'{\n "a": 1\n}\n', [{"a": 1}]),
        (LINES, [{"a": 1}, {"a": 2}]),
        (b"\xef\xbb\xbf\n" + LINES, [{"a": 1}, {"a": 2}]),
        (b'[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        (b'[\n {"a": 1},\n {"a": 2}\n]', [{"a": 1}, {"a": 2}]),
        (b'[{"a": 1}]\n[{"a": 2}]\n', [[{"a": 1}], [{"a": 2}]]),
    ],
)
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("packed", [bytes, gzip.compress, zstd.compress])
def test_layouts(tmp_path, monkeypatch, content, expected, large, packed):
    """A large file is one that does not fit into the first block."""
    if large:
        monkeypatch.setattr(files, "_BLOCK", 12)
    path = tmp_path / "any.name"
    path.write_bytes(packed(content))
    assert values(path) == expected


def test_several_compressed_parts(tmp_path):
    for name, packed in (("a.gz", gzip.compress), ("a.zst", zstd.compress)):
        path = tmp_path / name
        path.write_bytes(packed(b'{"a": 1}\n{"a"') + packed(b": 2}\n"))
        assert values(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ["is empty"]),
        (b"\n \n", ["is empty"]),
        (b"id,text\n", ["is not JSON: it begins with neither { nor ["]),
        (b'{"a": 1}\n{"a": \n{"a": 3}\n', [{"a": 1}, "is not JSON", {"a": 3}]),
        (b'{"a": \n{"a": 2}\n', ["is not JSON", {"a": 2}]),
        (b'[{"a": 1}, {"a": 2}, {"a"', [{"a": 1}, {"a": 2}, "is not JSON from here on"]),
        (b'{\n"a": 1,\n', ["is not JSON"]),
    ],
)
def test_what_is_broken(tmp_path, content, expected):
    path = tmp_path / "log.json"
    path.write_bytes(content)
    found = values(path)
    assert len(found) == len(expected)
    for value, wanted in zip(found, expected, strict=True):
        assert value == wanted or value.startswith(wanted)


def test_a_compressed_file_that_breaks_off_gives_what_is_before(tmp_path):
    for name, packed in (("a.gz", gzip.compress), ("a.zst", zstd.compress)):
        path = tmp_path / name
        content = b"".join(b'{"a": %d}\n' % number for number in range(50_000))
        path.write_bytes(packed(content)[:-100])
        *first, last = values(path)
        assert first[:2] == [{"a": 0}, {"a": 1}]
        assert last.startswith("cannot be decompressed to its end")
        assert all(isinstance(value, dict) for value in first)


def test_places(tmp_path):
    path = tmp_path / "log.json"
    path.write_bytes(b"\n" + LINES)
    assert places(path) == [":2", ":4"]
    path.write_bytes(b"[1, 2]")
    assert places(path) == ["[0]", "[1]"]


def test_python_s_own_json():
    assert loads(b'{"a": NaN, "b": "\\ud800x"}') == {"a": None, "b": "?x"}
    assert isinstance(loads(b"[" * 100_000), InvalidRecordError)
    assert isinstance(loads(b'"\xff"'), InvalidRecordError)


def test_files_of_folders(tmp_path):
    taken = ("b.json", "a.jsonl", "deep/er/c.ndjson.zst", "D.JSON.GZ")
    for name in (*taken, "no.txt", ".x.json", ".h/x.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert files_of([tmp_path]) == sorted(tmp_path / name for name in taken)
    assert files_of([tmp_path / "no.txt"]) == [tmp_path / "no.txt"]
    with pytest.raises(InputError, match="no such file"):
        files_of([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \*\.json"):
        files_of([tmp_path / "empty"])


def test_progress_adds_up_to_the_size_of_the_file(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(LINES * 10_000)
    read = []
    assert sum(1 for _ in records_of(path, read.append)) == 20_000
    assert sum(read) == path.stat().st_size


@pytest.mark.parametrize("array", [False, True])
def test_memory_does_not_grow_with_the_file(tmp_path, array):
    path = tmp_path / "log.json"
    one = json.dumps({"text": "x" * 20_000})
    with path.open("w") as log:
        log.write("[" + one if array else one)
        for _ in range(3_000):
            log.write(f",{one}" if array else f"\n{one}")
        log.write("]" if array else "")
    tracemalloc.start()
    assert sum(1 for _ in records_of(path)) == 3_001
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 60_000_000
    assert peak < 6_000_000


def test_another_encoding_is_named():
    assert str(loads('{"text": "é"}'.encode("latin-1"))) == "is not UTF-8 (byte 10)"
