"""Files that are replaced whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def atomic_write(path: Path, data: str | bytes, *, mode: int = 0o666) -> None:
    """Replace a file by ``data`` (text as UTF-8); see :func:`atomic_file`.

    Raises:
        OSError: it cannot be written; an earlier file is unchanged.
    """
    with atomic_file(path, mode=mode) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def atomic_file(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` when the block ends, if it does not raise.

    It is written beside ``path`` and synced to the disk, so a reader, or a machine that restarts
    after a power cut, finds the old content or the new one.

    Args:
        path: replaced if it exists; its folder must exist.
        mode: permissions, less the process's umask.

    Raises:
        OSError: it cannot be written; an earlier file is unchanged.
    """
    part = path.absolute().with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(part, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync(part.parent)
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Sync a file, or the entries of a folder, to the disk.

    Raises:
        OSError: it does not exist, or the disk fails.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
