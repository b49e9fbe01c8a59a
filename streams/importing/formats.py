"""Which format a file has, and its records put together as that format's reader wants them."""

import itertools
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from schemas.errors import InputError, InvalidRecordError
from streams.importing.files import Record
from streams.importing.readers import anthropic, atif, events, lrat, openai, react
from streams.importing.steps import SKIP, Fault, Reader, Trajectory

GROUP = "retrail.importers"
"""Entry points of readers that other packages add: the name of a format, and a Reader."""

AUTO = "auto"

SAMPLED = 50
"""Records of a file that are looked at until one is surely of a format."""


@cache
def readers() -> dict[str, Reader]:
    """All readers by the name of their format."""
    own: dict[str, Reader] = {
        "events": events.reader,
        "lrat": lrat.reader,
        "openai": openai.reader,
        "anthropic": anthropic.reader,
        "react": react.reader,
        "atif": atif.reader,
    }
    return own | {point.name: point.load() for point in entry_points(group=GROUP)}


def reader_of(name: str) -> Reader | None:
    """The reader of a format; nothing for ``auto``.

    Raises:
        InputError: there is no such format.
    """
    if name == AUTO:
        return None
    found = readers().get(name)
    if found is None:
        known = ", ".join([AUTO, *readers()])
        raise InputError(f"There is no format {name!r}; there are {known}.")
    return found


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
            fits = {name: reader.fits(value) for name, reader in readers().items()}
            best = {name: max(fit, best.get(name, 0)) for name, fit in fits.items()}
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
    raise InvalidRecordError(f"fits no format: give --format, one of {', '.join(readers())}")


Read = tuple[str, Trajectory | InvalidRecordError]
"""Place, and a trajectory or why there is none."""


def trajectories(reader: Reader, records: Iterable[Record]) -> Iterator[Read]:
    """The trajectories of a file's records."""
    for group in _groups(reader, records):
        place, fault = group[0][0], None
        values: list[Any] = []
        for at, value in group:
            if isinstance(value, InvalidRecordError):
                fault = Fault(f"{at} {value}")
                break
            values.append(value)
        if not values:
            yield place, InvalidRecordError(str(group[0][1]))
            continue
        try:
            found = list(reader.read(values))
        except InvalidRecordError as error:
            yield place, error
            continue
        for number, trajectory in enumerate(found, 1):
            if fault is not None and number == len(found):
                trajectory.steps.append(fault)
            yield place, trajectory


def _groups(reader: Reader, records: Iterable[Record]) -> Iterator[list[Record]]:
    """Records that are read together; what is broken belongs to the group that it stands in."""
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
