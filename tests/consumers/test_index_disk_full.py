"""A Milvus whose disk is full, on a file system of a few megabytes."""

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from consumers.indexing.collection import MAX_TEXT_BYTES, Row
from consumers.indexing.milvus import Milvus
from deploy.milvus import MilvusLite
from retrail_runtime.milvus import Build
from schemas.errors import RestartRequiredError
from schemas.settings import Settings
from tests import index_harness as harness

DIMENSION = 8
ROWS = 20

pytestmark = pytest.mark.faults


def mount(options: str, folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = mount("size=6m", folder)
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("this user cannot mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def rows(start: int) -> list[Row]:
    vector = np.full(DIMENSION, DIMENSION**-0.5, dtype=np.float32)
    return [
        Row(f"d{n}", "title", secrets.token_hex(MAX_TEXT_BYTES // 2), "hash", vector)
        for n in range(start, start + ROWS)
    ]


def test_rows_are_refused_while_there_is_no_room_and_none_acknowledged_is_lost(
    small_disk: Path, tmp_path: Path
) -> None:
    server = MilvusLite(small_disk / "milvus", tmp_path / "milvus.log")
    server.start()
    try:
        settings = Settings(milvus_uri=server.client_address)
        milvus = Milvus(settings, vector_index="FLAT", retry_seconds=2)
        build = Build("retrail_v1", 1, secrets.token_hex(4), "folder", "0" * 64)
        milvus.create(build, DIMENSION)
        written = 0
        refused: RestartRequiredError | None = None
        while refused is None and written < 50 * ROWS:
            try:
                milvus.upsert(build, rows(written))
                written += ROWS
            except RestartRequiredError as error:
                refused = error
        assert written
        assert "has free disk space" in str(refused)

        assert mount("remount,size=200m", small_disk)
        server.kill()
        server.start()
        milvus = Milvus(settings)
        # What was refused may be there: it is written again before its offset is committed.
        assert harness.rows(milvus, build).keys() >= {f"d{n}" for n in range(written)}
        milvus.upsert(build, rows(written))
        milvus.make_searchable(build)
        assert harness.rows(milvus, build).keys() == {f"d{n}" for n in range(written + ROWS)}
    finally:
        server.kill()
