"""Vectors on disk: each text is encoded once per model, by the trainer or by an index worker.

The vectors of all models and of all processes of a data directory are in one SQLite file. It is a
cache: if it fails, the process logs that and goes on without it.
"""

import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from retrail_runtime.files import free_space, private_folder
from retrail_runtime.mirror import rows_of
from schemas.documents import content_hash
from schemas.settings import Settings
from trainer.model.encoder import Encoder, Progress

log = structlog.get_logger(__name__)

MAX_BYTES = 2 * 1024**3
"""Of the file, approximately."""
BUSY_SECONDS = 5.0
"""How long to wait for another worker's write."""
EVICTED_AT_ONCE = 1000
WRITTEN_AT_ONCE = 1000

_TABLE = """
CREATE TABLE IF NOT EXISTS vectors (
    written INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE,
    vector BLOB NOT NULL
)
"""
_SELECT = "SELECT name, vector FROM vectors WHERE name"

Vectors = Mapping[str, NDArray[np.float32]]


class VectorStore:
    """Vectors by model and content hash; the oldest are evicted at the size limit.

    A crash loses at most the last writes, never the file (write-ahead log). Safe to share between
    threads and processes.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        """Open the file; one that cannot be read is replaced."""
        self._path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        try:
            private_folder(path.parent)
            self._connection = _open(path)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    @classmethod
    def of(cls, settings: Settings) -> "VectorStore":
        """The store of an installation's data directory."""
        return cls(settings.data_dir / "vectors" / "vectors.sqlite")

    def get(
        self, model: str, dimension: int, hashes: Iterable[str]
    ) -> dict[str, NDArray[np.float32]]:
        """(dimension,) float32 by content hash, of the stored ones.

        Args:
            model: the model's digest.
        """
        names = {_name(model, found): found for found in hashes}
        vectors: dict[str, NDArray[np.float32]] = {}
        with self._lock:
            if self._connection is None:
                return vectors
            try:
                for name, vector in rows_of(self._connection, _SELECT, names):
                    if len(vector) == 4 * dimension:
                        vectors[names[name]] = np.frombuffer(vector, "<f4").astype(np.float32)
            except sqlite3.Error as error:
                self._give_up(error)
        return vectors

    def put(self, model: str, vectors: Vectors) -> None:
        """Store vectors in short transactions; evicts the oldest above the size limit."""
        rows = ((_name(model, found), v.astype("<f4").tobytes()) for found, v in vectors.items())
        while some := list(islice(rows, WRITTEN_AT_ONCE)):
            with self._lock:
                if self._connection is None:
                    return
                try:
                    with self._connection:
                        self._connection.executemany(
                            "INSERT OR IGNORE INTO vectors (name, vector) VALUES (?, ?)", some
                        )
                        self._evict(self._connection)
                except sqlite3.Error as error:
                    self._give_up(error)

    def close(self) -> None:
        """Close the file; afterwards nothing is found or stored."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _evict(self, connection: sqlite3.Connection) -> None:
        while _used(connection) > self._max_bytes:
            evicted = connection.execute(
                "DELETE FROM vectors WHERE written IN "
                "(SELECT written FROM vectors ORDER BY written LIMIT ?)",
                (EVICTED_AT_ONCE,),
            )
            if evicted.rowcount == 0:
                return

    def _give_up(self, error: Exception) -> None:
        log.warning(
            "continuing without stored vectors",
            file=str(self._path),
            error=str(error),
            disk=free_space(self._path),
        )
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def encode(
    store: VectorStore,
    encoder: Encoder,
    digest: str,
    texts: Iterable[str],
    progress: Progress | None = None,
) -> tuple[Vectors, int]:
    """Vectors by content hash, from the store or encoded, and how many were encoded.

    Args:
        digest: of the encoder's model.
        progress: called between batches; may raise to stop.
    """
    by_hash = {content_hash(text): text for text in texts}
    vectors = store.get(digest, encoder.dimension, by_hash)
    missing = {found: text for found, text in by_hash.items() if found not in vectors}
    if missing:
        encoded = encoder.encode_documents(list(missing.values()), progress=progress)
        fresh = dict(zip(missing, encoded, strict=True))
        store.put(digest, fresh)
        vectors |= fresh
    return vectors, len(missing)


def _name(model: str, content_hash: str) -> bytes:
    return hashlib.sha256(f"{model} {content_hash}".encode()).digest()[:16]


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        log.warning("replacing unreadable vector store", file=str(path), error=str(error))
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
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
