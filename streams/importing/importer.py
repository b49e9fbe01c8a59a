"""Reads files of trajectories, of any format, into events; the report says what became of them."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import InputError, InvalidRecordError
from streams.events import Answer, Browse, Event, Reasoning, Search, encode
from streams.importing.documents import Documents
from streams.importing.files import Record, files_of, records_of
from streams.importing.formats import AUTO, reader_of, readers, recognise, trajectories
from streams.importing.normalise import Part, parts
from streams.importing.readers import events
from streams.importing.report import Counts, Report
from streams.importing.steps import Reader
from streams.importing.tools import ToolMap


def _ignore(count: int) -> None:
    """Nobody wants to know how much was read."""


@dataclass
class Importer:
    """One import; ``report`` is complete when all has been read.

    Attributes:
        format: name of a format, or ``auto``.
        tools: which tools search and open.
        documents: the known ones; nothing if they are not known.
        strict: raise for the first trajectory that cannot be read to its end.
        on_bytes: called with the number of bytes of the files that were read since the last call.
    """

    format: str = AUTO
    tools: ToolMap = field(default_factory=ToolMap.load)
    documents: Documents | None = None
    strict: bool = False
    on_bytes: Callable[[int], object] = _ignore
    report: Report = field(default_factory=Report)
    _seen: set[bytes] = field(default_factory=set)

    def read(self, paths: Iterable[Path]) -> Iterator[Part]:
        """The trajectories, in the order of the files; of the format ``events`` each event.

        A trajectory that was read before, in this file or another, is left out and counted.

        Raises:
            InputError: see :func:`~streams.importing.files.files_of`; there is no such format; or,
                if strict, what cannot be read.
        """
        chosen = reader_of(self.format)
        for path in files_of(paths):
            yield from self._file(path, chosen)

    def bad(self, place: str, problem: str, *, incomplete: bool = False) -> None:
        """Something cannot be read, or not to its end: it goes into the report.

        Raises:
            InputError: if strict.
        """
        if self.strict:
            raise InputError(f"{place}: {problem}")
        self.report.bad(place, problem, incomplete=incomplete)

    def _file(self, path: Path, reader: Reader | None) -> Iterator[Part]:
        records, name = records_of(path, self.on_bytes), self.format
        if reader is None:
            try:
                name, records = recognise(records)
            except InvalidRecordError as error:
                self.bad(str(path), str(error))
                return
            reader = readers()[name]
        counts = self.report.of(name)
        counts.files += 1
        if reader is events.reader:
            yield from self._events(counts, records)
            return
        for place, found in trajectories(reader, records):
            if isinstance(found, InvalidRecordError):
                self.bad(place, str(found))
                continue
            for part in parts(found, self.tools, counts, self.documents):
                if part.fault:
                    self.bad(place, part.fault, incomplete=bool(part.events))
                if part.events and self._is_new(part):
                    counts.trajectories += 1
                    yield part
                else:
                    counts.repeated += bool(part.events)

    def _is_new(self, part: Part) -> bool:
        """A session that grew has the id of an earlier one, and another last event."""
        last = part.events[-1]
        digest = hashlib.blake2b(encode(last), digest_size=12).digest()
        before = len(self._seen)
        self._seen.add(digest)
        return len(self._seen) > before

    def _events(self, counts: Counts, records: Iterable[Record]) -> Iterator[Part]:
        for place, found in events.parsed(records):
            if isinstance(found, InvalidRecordError):
                self.bad(place, str(found))
            else:
                _count(counts, found)
                yield Part([found], whole=False)


def _count(counts: Counts, event: Event) -> None:
    counts.trajectories += event.seq == 0
    counts.steps += 1
    match event:
        case Search():
            counts.searches += 1
            counts.hits += len(event.hits)
        case Browse():
            counts.opens += 1
        case Reasoning():
            counts.reasonings += 1
        case Answer():
            counts.answers += 1
