"""Reads files of trajectories, of any format, into events; the report counts what was read."""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import InputError, InvalidRecordError
from streams.events import Answer, Browse, End, Event, Reasoning, Search, encode, read_published
from streams.importing.files import Record, files_of, records_of
from streams.importing.hits import Documents
from streams.importing.normalise import Part, parts
from streams.importing.readers import (
    SKIP,
    Fault,
    FileReader,
    Fit,
    Reader,
    Trajectory,
    anthropic,
    atif,
    lrat,
    openai,
    otlp,
    react,
)
from streams.importing.report import Counts, Report
from streams.importing.tools import ToolMap

AUTO, EVENTS = "auto", "events"
"""Formats without a reader: recognised by content; events as on trajectory-events."""

GROUP = "retrail.importers"
"""Entry points of readers that other packages add: the name of a format, and a Reader."""

SAMPLED = 50
"""Records of a file that are tried until one is surely of a format."""

OPEN = 10_000
"""Trajectories of a log of events whose hits are in memory; the oldest is dropped."""

_ENVELOPE = {"type", "event_id", "trajectory_id", "agent"}


@cache
def readers() -> dict[str, Reader | FileReader]:
    """All readers by the name of their format."""
    own: dict[str, Reader | FileReader] = {
        "lrat": lrat.reader,
        "openai": openai.reader,
        "anthropic": anthropic.reader,
        "react": react.reader,
        "atif": atif.reader,
        "otlp": otlp.reader,
    }
    return own | {point.name: point.load() for point in entry_points(group=GROUP)}


@dataclass
class Importer:
    """One import.

    Attributes:
        format: name of a format, or ``auto``.
        tools: which tools search and open.
        documents: the documents that exist; ``None`` if they are not known.
        strict: raise for the first trajectory that cannot be read to its end.
        on_bytes: called with the number of bytes of the files that were read since the last call.
        report: complete when everything has been read.
    """

    format: str = AUTO
    tools: ToolMap = field(default_factory=ToolMap.load)
    documents: Documents | None = None
    strict: bool = False
    on_bytes: Callable[[int], object] = lambda _: None
    report: Report = field(default_factory=Report)
    _seen: set[bytes] = field(default_factory=set)

    def read(self, paths: Iterable[Path]) -> Iterator[Part]:
        """The trajectories, in the order of the files; of the format ``events`` each event.

        A trajectory that was read before, in this file or another, is counted and not repeated.

        Raises:
            InputError: see :func:`~streams.importing.files.files_of`; there is no such format; or,
                if strict, a trajectory cannot be read.
        """
        formats = [AUTO, EVENTS, *readers()]
        if self.format not in formats:
            known = ", ".join(formats)
            raise InputError(f"There is no format {self.format!r}; there are {known}.")
        for path in files_of(paths):
            yield from self._file(path)

    def bad(self, place: str, problem: str, *, incomplete: bool = False) -> None:
        """Report what cannot be read, or not to its end.

        Raises:
            InputError: if strict.
        """
        if self.strict:
            raise InputError(f"{place}: {problem}")
        self.report.bad(place, problem, incomplete=incomplete)

    def _file(self, path: Path) -> Iterator[Part]:
        records, name = records_of(path, self.on_bytes), self.format
        if name == AUTO:
            try:
                name, records = recognise(records)
            except InvalidRecordError as error:
                self.bad(str(path), str(error))
                return
        counts = self.report.of(name)
        counts.files += 1
        if name == EVENTS:
            yield from self._events(counts, records)
            return
        for place, found in trajectories(readers()[name], records):
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
        """Whether its last event is new: a session that grew keeps the id of its last part."""
        last = part.events[-1]
        digest = hashlib.blake2b(encode(last), digest_size=12).digest()
        before = len(self._seen)
        self._seen.add(digest)
        return len(self._seen) > before

    def _events(self, counts: Counts, records: Iterable[Record]) -> Iterator[Part]:
        """Each event; after one that is invalid nothing of its trajectory follows."""
        broken = set[Any]()
        shown = dict[str, set[str]]()
        for place, value in records:
            trajectory_id = value.get("trajectory_id") if isinstance(value, dict) else None
            if trajectory_id in broken:
                continue
            try:
                if isinstance(value, InvalidRecordError):
                    raise value
                event, _ = read_published(orjson.dumps(value))
            except InvalidRecordError as error:
                if isinstance(trajectory_id, str):
                    broken.add(trajectory_id)
                self.bad(place, str(error))
                continue
            _count(counts, event, shown)
            yield Part([event], whole=False)


def _count(counts: Counts, event: Event, shown: dict[str, set[str]]) -> None:
    """Count an event; ``shown`` has the hits of trajectories that have not ended."""
    counts.trajectories += event.seq == 0
    counts.steps += 1
    match event:
        case Search():
            counts.searches += 1
            counts.hits += len(event.hits)
            if event.trajectory_id not in shown:
                # A search opens an unnumbered trajectory.
                counts.trajectories += event.seq is None
                if len(shown) >= OPEN:
                    del shown[next(iter(shown))]
            shown.setdefault(event.trajectory_id, set()).update(hit.doc_id for hit in event.hits)
            if not event.hits:
                counts.example("search", f"{event.query!r} gave nothing")
        case Browse():
            counts.opens += 1
            if event.doc_id not in shown.get(event.trajectory_id, ()):
                counts.opens_unsearched += 1
                counts.example("open", f"a browse of {event.doc_id!r}")
        case End():
            shown.pop(event.trajectory_id, None)
        case Reasoning():
            counts.reasonings += 1
        case Answer():
            counts.answers += 1


def recognise(records: Iterator[Record]) -> tuple[str, Iterator[Record]]:
    """The format of a file's records, and all of these again.

    Raises:
        InvalidRecordError: they fit no format, or several.
    """
    sample: list[Record] = []
    best: dict[str, int] = {}
    for place, value in itertools.islice(records, SAMPLED):
        sample.append((place, value))
        if not isinstance(value, InvalidRecordError):
            best |= {name: max(fit, best.get(name, 0)) for name, fit in _fits(value).items()}
        if 2 in best.values():
            break
    most = max(best.values(), default=0)
    candidates = [name for name, fit in best.items() if fit == most and fit > 0]
    if len(candidates) == 1:
        return candidates[0], itertools.chain(sample, records)
    if candidates:
        choice = " or ".join(f"--format {name}" for name in candidates)
        raise InvalidRecordError(f"fits several formats: give {choice}")
    if sample and all(isinstance(value, InvalidRecordError) for _, value in sample):
        raise InvalidRecordError(str(sample[0][1]))
    known = ", ".join([EVENTS, *readers()])
    raise InvalidRecordError(f"fits no format: give --format, one of {known}")


def _fits(value: Any) -> dict[str, Fit]:
    if isinstance(value, dict) and value.keys() >= _ENVELOPE:
        return {EVENTS: 2}
    return {name: reader.fits(value) for name, reader in readers().items()}


def trajectories(
    reader: Reader | FileReader, records: Iterable[Record]
) -> Iterator[tuple[str, Trajectory | InvalidRecordError]]:
    """Place of each trajectory in a file, and the trajectory or why it cannot be read."""
    if isinstance(reader, FileReader):
        yield from reader.scan(records)
        return
    for group in _groups(reader, records):
        place = group[0][0]
        valid = itertools.takewhile(lambda one: not isinstance(one[1], InvalidRecordError), group)
        values = [value for _, value in valid]
        try:
            if not values:
                raise group[0][1]
            found = list(reader.read(values))
        except InvalidRecordError as error:
            yield place, error
            continue
        if found and len(values) < len(group):
            at, problem = group[len(values)]
            found[-1].steps.append(Fault(f"{at} {problem}"))
        yield from ((place, trajectory) for trajectory in found)


def _groups(reader: Reader, records: Iterable[Record]) -> Iterator[list[Record]]:
    """Records that are read together; a broken one is in the group of the one before it."""
    group: list[Record] = []
    key: Any = None
    for place, value in records:
        if isinstance(value, InvalidRecordError):
            own = key
        elif (own := reader.key(value)) is SKIP:
            continue
        if group and (own is None or own != key):
            yield group
            group = []
        group.append((place, value))
        key = own
    if group:
        yield group
