"""Files are replaced whole or not at all, and read line by line; one process locks a folder."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from retrail_runtime.files import (
    atomic_file,
    atomic_write,
    claim,
    read_json_lines,
    read_lines,
    try_lock,
    user_cache,
)
from schemas.errors import ConfigurationError, InputError, InvalidRecordError
from schemas.settings import Settings

HOLDER = """
import sys, time
from pathlib import Path
from retrail_runtime.files import claim
from schemas.settings import Settings
claimed = claim(Settings(data_dir=Path(sys.argv[1])), "mine")
print(claimed.path.name, flush=True)
time.sleep(60)
"""


def test_text_and_bytes_replace_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a file"
    for data in ("Zoë\r\n", b"longer than before", b""):
        atomic_write(file, data)
        assert file.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_leaves_the_earlier_file(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("before")

    def fail() -> None:
        with atomic_file(file) as part:
            part.write(b"half")
            assert file.read_text() == "before"
            raise RuntimeError("half")

    with pytest.raises(RuntimeError, match="half"):
        fail()
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_errors_of_the_system_are_raised(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "none" / "f", "")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        atomic_write(tmp_path / "folder", "")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


@pytest.mark.parametrize(("mode", "expected"), [(0o666, 0o644), (0o600, 0o600)])
def test_permissions_follow_the_umask(tmp_path: Path, mode: int, expected: int) -> None:
    before = os.umask(0o022)
    try:
        atomic_write(tmp_path / "f", "", mode=mode)
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == expected


def test_readers_beside_writers_never_see_a_part(tmp_path: Path) -> None:
    file = tmp_path / "f"
    contents = [letter * 100_000 for letter in "abc"]
    atomic_write(file, contents[0])

    def write(content: str) -> None:
        for _ in range(20):
            atomic_write(file, content)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert file.read_text() in contents
    assert list(tmp_path.iterdir()) == [file]


def test_lines_have_a_place_and_blank_ones_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "f.jsonl"
    file.write_bytes(b'{"a": 1}\r\n \n{\n[1]\n\xff')
    assert [place for place, _ in read_lines(file)] == [f"{file}:{n}" for n in (1, 3, 4, 5)]
    first, *others = read_json_lines(file)
    assert first == (f"{file}:1", {"a": 1})
    for (place, error), number, message in zip(
        others, (3, 4, 5), ("not JSON", "expected, not list", "not UTF-8"), strict=True
    ):
        assert place == f"{file}:{number}"
        assert isinstance(error, InvalidRecordError)
        assert message in str(error)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent cannot be read: No such file") as caught:
        list(read_lines(tmp_path / "absent"))
    assert caught.value.path == tmp_path / "absent"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_is_named_with_its_free_space(tmp_path: Path, number: int) -> None:
    with (
        pytest.raises(OSError, match=rf"\(\d[\d,]* MiB free in {tmp_path}\)") as caught,
        atomic_file(tmp_path / "f"),
    ):
        raise OSError(number, os.strerror(number))
    assert caught.value.errno == number
    assert os.strerror(number) in str(caught.value.strerror)
    assert list(tmp_path.iterdir()) == []


def test_each_process_gets_a_folder_and_gets_it_back_after_a_kill(tmp_path: Path) -> None:
    def start() -> tuple["subprocess.Popen[str]", str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    first, name = start()
    try:
        assert name == "mine"
        mine = claim(Settings(data_dir=tmp_path), "mine")
        assert mine.path == tmp_path / "mine-2"
        assert claim(Settings(data_dir=tmp_path), "train").path == tmp_path / "train"
    finally:
        first.kill()
        first.communicate()
    second, name = start()
    second.kill()
    second.communicate()
    assert name == "mine"


def test_a_lock_is_held_once_and_released(tmp_path: Path) -> None:
    lock = try_lock(tmp_path / "new" / "lock")
    assert lock is not None
    assert try_lock(tmp_path / "new" / "lock") is None
    lock.release()
    assert try_lock(tmp_path / "new" / "lock") is not None


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="RETRAIL_DATA_DIR"):
        claim(Settings(data_dir=tmp_path / "file"), "mine")


def test_without_a_home_the_error_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Case: no HOME, and a user id that is in no list of users."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(ConfigurationError, match="XDG_CACHE_HOME"):
        user_cache()
