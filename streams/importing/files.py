"""JSON files: found in folders, decompressed, and read record by record.

A record is a whole JSON document, a line of JSON Lines, or an item of a JSON array. Only one record
is in memory at a time, so files may be of any size.
"""

import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import ijson
import orjson

from retrail_runtime.files import BOM, PACKED, UNREADABLE, decompressed
from schemas.errors import InputError, InvalidRecordError

SUFFIXES = (".json", ".jsonl", ".ndjson")

_BLOCK, _BUFFER = 1 << 20, 1 << 16

Record = tuple[str, Any]
"""Place (``file:line`` or ``file[item]``), and a JSON value or an InvalidRecordError."""


def files_of(paths: Iterable[Path]) -> list[Path]:
    """The files at the paths; of a folder the JSON files in it, recursively, sorted.

    Raises:
        InputError: a path does not exist, or there is no file.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(found for found in path.rglob("*") if _is_log(found, path))
        elif path.exists():
            files.append(path)
        else:
            raise InputError(f"{path}: no such file or folder", path=path)
    if not files:
        endings = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
        raise InputError(f"There are no {endings} files (or .gz, .zst of them) in the folders.")
    return files


def _is_log(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    name = path.name.lower()
    endings = tuple(suffix + packed for suffix in SUFFIXES for packed in PACKED)
    return not hidden and name.endswith(endings) and path.is_file()


def records_of(path: Path, on_bytes: Callable[[int], object] = lambda _: None) -> Iterator[Record]:
    """The records of a file.

    A broken record is an :class:`InvalidRecordError`; it is the last one if a document or an array
    is truncated.

    Args:
        path: plain, gzip or Zstandard, with or without a byte order mark.
        on_bytes: called with the number of bytes of the file that were read since the last call.
    """
    read, reported = 0, False
    try:
        with path.open("rb") as raw:
            content = _Content(decompressed(raw))
            for place, value in _records(str(path), content):
                if content.error and isinstance(value, InvalidRecordError):
                    value, reported = content.error, True
                yield place, value
                on_bytes(raw.tell() - read)
                read = raw.tell()
            on_bytes(raw.tell() - read)
            if content.error and not reported:
                yield str(path), content.error
    except OSError as error:
        yield str(path), InvalidRecordError(f"cannot be read: {error.strerror or error}")


class _Content(io.RawIOBase):
    """The decompressed bytes of a file, up to where it is broken; then ``error`` is set."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._begin = io.BytesIO()
        self.error: InvalidRecordError | None = None

    def begin(self, size: int) -> bytes:
        """The first bytes, which are read again afterwards; fewer if the file is shorter."""
        chunks = list[bytes]()
        while size > 0 and (chunk := self.read(size)):
            chunks.append(chunk)
            size -= len(chunk)
        begin = b"".join(chunks).removeprefix(BOM)
        self._begin = io.BytesIO(begin)
        return begin

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._begin.read(len(buffer)) or self._source.read1(len(buffer))
        except UNREADABLE as error:
            self.error = InvalidRecordError(f"cannot be decompressed to its end: {error}")
            return 0
        buffer[: len(data)] = data
        return len(data)


def _records(name: str, content: _Content) -> Iterator[Record]:
    begin = content.begin(_BLOCK)
    if len(begin) < _BLOCK - len(BOM):
        whole = loads(begin)
        if isinstance(whole, list):
            yield from ((f"{name}[{number}]", item) for number, item in enumerate(whole))
            return
        if not isinstance(whole, InvalidRecordError):
            yield name, whole
            return
    stream = cast(BinaryIO, io.BufferedReader(content, _BUFFER))
    first, _, rest = begin.lstrip().partition(b"\n")
    second = rest.partition(b"\n")[0]
    match first[:1]:
        case b"[" if not (rest.strip() and _is_json(first)):
            yield from _items(name, stream)
        case b"{" if rest.strip() and not _is_json(first) and not _is_json(second):
            yield name, loads(stream.read())
        case b"[" | b"{":
            yield from _lines(name, stream)
        case b"":
            yield name, InvalidRecordError("is empty")
        case _:
            yield name, InvalidRecordError("is not JSON: it begins with neither { nor [")


def _lines(name: str, stream: BinaryIO) -> Iterator[Record]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            yield f"{name}:{number}", loads(line)


def _items(name: str, stream: BinaryIO) -> Iterator[Record]:
    number = -1
    try:
        for number, item in enumerate(ijson.items(stream, "item", use_float=True)):
            yield f"{name}[{number}]", item
    except ijson.JSONError as error:
        problem = " ".join(str(error).split())[:200]
        yield f"{name}[{number + 1}]", InvalidRecordError(f"is not JSON from here on: {problem}")


def _is_json(line: bytes) -> bool:
    return not isinstance(loads(line), InvalidRecordError)


def json_in(value: Any, begins: tuple[str, ...] = ("{", "[")) -> Any:
    """The value of JSON in a string that begins so, see :func:`loads`; any other value as it is."""
    if isinstance(value, str) and value.lstrip().startswith(begins):
        return loads(value)
    return value


def loads(text: bytes | str) -> Any:
    """A JSON value, or an InvalidRecordError; NaN is null, a lone surrogate a question mark."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        # Python's json module reads the NaN and lone surrogates that it may have written.
        found = json.loads(text, parse_constant=lambda _: None)
        return orjson.loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))
    except UnicodeDecodeError as error:
        return InvalidRecordError(f"is not UTF-8 (byte {error.start})")
    except (ValueError, RecursionError) as error:
        return InvalidRecordError(f"is not JSON: {error}")
