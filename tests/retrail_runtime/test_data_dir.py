"""One process a folder, whatever becomes of the process."""

import subprocess
import sys
from pathlib import Path

import pytest

from retrail_runtime.data_dir import claim, try_lock
from schemas.errors import ConfigurationError
from schemas.settings import Settings

HOLDER = """
import sys, time
from pathlib import Path
from retrail_runtime.data_dir import claim
from schemas.settings import Settings
claimed = claim(Settings(data_dir=Path(sys.argv[1])), "mine")
print(claimed.path.name, flush=True)
time.sleep(60)
"""


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
