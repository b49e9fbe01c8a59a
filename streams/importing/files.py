"""Files with JSON in them: found in folders, decompressed, and read record by record.

A record is a whole JSON document, a line of JSON Lines, or an item of a JSON array. No more than
one record is held, so the size of a file does not matter.
"""

import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import ijson
import orjson
import zstandard

from schemas.errors import InputError, InvalidRecordError

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
    read = 0
    try:
        with path.open("rb") as raw:
            # Held here: a stream that nobody holds closes what it reads from.
            stream = _decompressed(raw)
            for record in _records(str(path), stream):
                yield record
                on_bytes(raw.tell() - read)
                read = raw.tell()
            on_bytes(raw.tell() - read)
    except (OSError, EOFError, zstandard.ZstdError) as error:
        reason = getattr(error, "strerror", None) or error
        yield str(path), InvalidRecordError(f"cannot be read: {reason}")


def _decompressed(raw: BinaryIO) -> BinaryIO:
    magic = raw.read(4)
    raw.seek(0)
    stream: Any
    if magic.startswith(_GZIP):
        stream = gzip.GzipFile(fileobj=raw)
    elif magic == _ZSTD:
        stream = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
    else:
        return raw
    return cast(BinaryIO, io.BufferedReader(stream, _BUFFER))


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
