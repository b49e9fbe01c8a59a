"""Vectors of texts that were encoded once, on disk, so that no restart encodes them again.

One SQLite file for all models and all workers over a data directory. It holds nothing that cannot
be had again: whatever is wrong with it, the worker goes on without it and says so.
"""

import hashlib
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from retrail_runtime.mirror import rows_of
from schemas.settings import Settings

log = structlog.get_logger(__name__)

Vectors = dict[str, NDArray[np.float32]]

WAIT_SECONDS = 5.0
"""For another worker that writes."""
DROPPED_AT_ONCE = 1000

_TABLE = """
CREATE TABLE IF NOT EXISTS vectors (
    written INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE,
    vector BLOB NOT NULL
)
"""
_SELECT = "SELECT name, vector FROM vectors WHERE name"


class VectorStore:
    """Vectors by model and content hash; the ones written first give way at the limit.

    A crash loses at most what was written last, never the file (write-ahead log). Safe to share
    between threads and processes.
    """

    def __init__(self, path: Path, limit: int) -> None:
        """Open the file, or a new one in place of one that cannot be read.

        Args:
            path: of the file; its folder is made.
            limit: bytes of the file, about.
        """
        self._path = path
        self._limit = limit
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _open(path)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def of(self, digest: str, dimension: int) -> "ModelVectors":
        """The vectors of one model."""
        return ModelVectors(self, digest, dimension)

    def get(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """What is there of ``names``."""
        found: dict[bytes, bytes] = {}
        with self._lock:
            if self._connection is None:
                return found
            try:
                found.update(rows_of(self._connection, _SELECT, names))
            except sqlite3.Error as error:
                self._give_up(error)
        return found

    def put(self, vectors: Mapping[bytes, bytes]) -> None:
        """Keep vectors, in one transaction; the oldest go if there is no room."""
        with self._lock:
            if self._connection is None:
                return
            try:
                with self._connection:
                    self._connection.executemany(
                        "INSERT OR IGNORE INTO vectors (name, vector) VALUES (?, ?)",
                        vectors.items(),
                    )
                    self._make_room(self._connection)
            except sqlite3.Error as error:
                self._give_up(error)

    def close(self) -> None:
        """Close the file; nothing is found or kept afterwards."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _make_room(self, connection: sqlite3.Connection) -> None:
        while _used(connection) > self._limit:
            dropped = connection.execute(
                "DELETE FROM vectors WHERE written IN "
                "(SELECT written FROM vectors ORDER BY written LIMIT ?)",
                (DROPPED_AT_ONCE,),
            )
            if dropped.rowcount == 0:
                return

    def _give_up(self, error: Exception) -> None:
        log.warning("going on without the vectors on disk", file=str(self._path), why=str(error))
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass(frozen=True, slots=True)
class ModelVectors:
    """The part of a store that is one model's; by content hash."""

    store: VectorStore
    digest: str
    dimension: int

    def get(self, hashes: Sequence[str]) -> Vectors:
        """(dimension,) float32 of each that is there."""
        names = {self._name(found): found for found in hashes}
        return {
            names[name]: np.frombuffer(vector, dtype="<f4").astype(np.float32)
            for name, vector in self.store.get(list(names)).items()
            if len(vector) == 4 * self.dimension
        }

    def put(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep vectors."""
        self.store.put(
            {self._name(found): vector.astype("<f4").tobytes() for found, vector in vectors.items()}
        )

    def _name(self, content_hash: str) -> bytes:
        return hashlib.sha256(f"{self.digest} {content_hash}".encode()).digest()[:16]


def open_store(settings: Settings) -> VectorStore | None:
    """The store of an installation; ``None`` if it is switched off."""
    if not settings.vector_store_mb:
        return None
    path = settings.data_dir / "vectors" / "vectors.sqlite"
    return VectorStore(path, settings.vector_store_mb * 1024 * 1024)


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        log.warning("vectors on disk cannot be read, beginning anew", why=str(error))
        for name in ("", "-wal", "-shm"):
            path.with_name(path.name + name).unlink(missing_ok=True)
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=WAIT_SECONDS, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(_TABLE)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _used(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
