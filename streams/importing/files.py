"""Files with JSON in them: found in folders, decompressed, and read record by record.

A record is a whole JSON document, a line of JSON Lines, or an item of a JSON array. No more than
one record is held, so the size of a file does not matter.
"""

import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import ijson
import orjson

from schemas.errors import InputError, InvalidRecordError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SUFFIXES = (".json", ".jsonl", ".ndjson")
COMPRESSED = ("", ".gz", ".zst", ".zstd")

_GZIP, _ZSTD, _BOM = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xef\xbb\xbf"
_BLOCK, _BUFFER = 1 << 20, 1 << 16

Record = tuple[str, Any]
"""Place (``file:line`` or ``file[item]``), and a JSON value or an InvalidRecordError."""


def files_of(paths: Iterable[Path]) -> list[Path]:
    """The files that the paths name; a folder stands for the JSON files in it, also deep, sorted.

    Raises:
        InputError: a path does not exist, or no file is left.
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
    endings = tuple(suffix + packed for suffix in SUFFIXES for packed in COMPRESSED)
    return not hidden and name.endswith(endings) and path.is_file()


def records_of(path: Path, on_bytes: Callable[[int], object] = lambda _: None) -> Iterator[Record]:
    """The records of a file.

    What is broken comes as an :class:`InvalidRecordError`; nothing follows where a document or an
    array breaks off.

    Args:
        path: plain, gzip or Zstandard, with or without a byte order mark.
        on_bytes: called with the number of bytes of the file that were read since the last call.
    """
    read, reported = 0, False
    try:
        with path.open("rb") as raw:
            packed = _decompressed(raw)
            for place, value in _records(str(path), packed.stream):
                if packed.error and isinstance(value, InvalidRecordError):
                    value, reported = packed.error, True
                yield place, value
                on_bytes(raw.tell() - read)
                read = raw.tell()
            on_bytes(raw.tell() - read)
            if packed.error and not reported:
                yield str(path), packed.error
    except OSError as error:
        yield str(path), InvalidRecordError(f"cannot be read: {error.strerror or error}")


def _decompressed(raw: BinaryIO) -> "_Packed":
    magic = raw.read(4)
    raw.seek(0)
    if magic.startswith(_GZIP):
        return _Packed(gzip.GzipFile(fileobj=raw))
    if magic == _ZSTD:
        return _Packed(zstd.ZstdFile(raw))
    return _Packed(raw)


class _Packed(io.RawIOBase):
    """What a file holds, up to where it is broken off; ``error`` says so."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.error: InvalidRecordError | None = None
        self.stream = cast(BinaryIO, io.BufferedReader(self, _BUFFER))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._source.read1(len(buffer))
        except (EOFError, zlib.error, gzip.BadGzipFile, zstd.ZstdError) as error:
            self.error = InvalidRecordError(f"cannot be decompressed to its end: {error}")
            return 0
        buffer[: len(data)] = data
        return len(data)


def _records(name: str, stream: BinaryIO) -> Iterator[Record]:
    begin = stream.read(_BLOCK).removeprefix(_BOM)
    if len(begin) < _BLOCK - len(_BOM):
        whole = loads(begin)
        if isinstance(whole, list):
            yield from ((f"{name}[{number}]", item) for number, item in enumerate(whole))
            return
        if not isinstance(whole, InvalidRecordError):
            yield name, whole
            return
    joined = cast(BinaryIO, io.BufferedReader(_Chained(begin, stream), _BUFFER))
    first, _, rest = begin.lstrip().partition(b"\n")
    second = rest.partition(b"\n")[0]
    match first[:1]:
        case b"[" if not (rest.strip() and _is_json(first)):
            yield from _items(name, joined)
        case b"{" if rest.strip() and not _is_json(first) and not _is_json(second):
            yield name, loads(joined.read())
        case b"[" | b"{":
            yield from _lines(name, joined)
        case b"":
            yield name, InvalidRecordError("is empty")
        case _:
            yield name, InvalidRecordError("is not JSON: it begins with neither { nor [")


class _Chained(io.RawIOBase):
    def __init__(self, begin: bytes, stream: BinaryIO) -> None:
        self._begin = io.BytesIO(begin)
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._begin.read(len(buffer)) or self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


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


def loads(text: bytes | str) -> Any:
    """A JSON value, or an InvalidRecordError; NaN is null, a lone surrogate a question mark."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        # Python's own reader takes NaN and lone surrogates, which Python's own writer may write.
        found = json.loads(text, parse_constant=lambda _: None)
        return orjson.loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        return InvalidRecordError(f"is not JSON: {error}")
