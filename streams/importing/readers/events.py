"""Events as on the topic ``trajectory-events``, one a line."""

from collections.abc import Hashable, Iterable, Iterator
from typing import Any

import orjson

from schemas.errors import InvalidRecordError
from streams.events import Event, read_published
from streams.importing.steps import Fit, Trajectory

_ENVELOPE = {"type", "event_id", "trajectory_id", "agent"}


class _Events:
    """Events need no reader of steps: they are parsed as they are."""

    def fits(self, value: Any) -> Fit:
        return 2 if isinstance(value, dict) and value.keys() >= _ENVELOPE else 0

    def key(self, value: Any) -> Hashable:
        return None

    def read(self, values: list[Any]) -> Iterable[Trajectory]:
        raise NotImplementedError("events are parsed, see parsed()")


reader = _Events()


def parsed(
    records: Iterable[tuple[str, Any]],
) -> Iterator[tuple[str, Event | InvalidRecordError]]:
    """The event of each record, or why it is none; nothing of its trajectory follows then."""
    broken = set[Any]()
    for place, value in records:
        if isinstance(value, InvalidRecordError):
            yield place, value
            continue
        trajectory_id = value.get("trajectory_id") if isinstance(value, dict) else None
        if trajectory_id in broken:
            continue
        try:
            yield place, read_published(orjson.dumps(value))[0]
        except InvalidRecordError as error:
            if isinstance(trajectory_id, str):
                broken.add(trajectory_id)
            yield place, error
