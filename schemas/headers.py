"""Kafka headers: CloudEvents on events, and the error headers of dead letters."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from schemas.events import Envelope

Headers = Sequence[tuple[str, bytes]]

CE_SOURCE_PREFIX = "retrail/agents/"
CONTENT_TYPE = "application/json"


def cloudevents(event: Envelope, event_type: str) -> list[tuple[str, bytes]]:
    """CloudEvents 1.0 attributes in Kafka's binary mode."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", event.event_id.encode()),
        ("ce_type", f"retrail.trajectory.{event_type}".encode()),
        ("ce_source", f"{CE_SOURCE_PREFIX}{event.agent.name}".encode()),
        ("ce_time", event.occurred_at.isoformat().encode()),
        ("content-type", CONTENT_TYPE.encode()),
    ]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why and from where a record was dead-lettered; its bytes, key and headers are unchanged."""

    topic: str
    partition: int
    offset: int
    stage: str
    reason: str
    exception: str
    message: str

    _PREFIX: ClassVar[str] = "retrail_dlq_"

    def headers(self, original: Iterable[tuple[str, bytes]] = ()) -> list[tuple[str, bytes]]:
        """The original headers, then ours, which replace those of an earlier dead letter."""
        ours = [
            (f"{self._PREFIX}{name}", str(getattr(self, name)).encode())
            for name in ("topic", "partition", "offset", "stage", "reason", "exception", "message")
        ]
        return self.original_headers(original) + ours

    @classmethod
    def original_headers(cls, headers: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Headers without those that a dead letter adds."""
        return [(name, value) for name, value in headers if not name.startswith(cls._PREFIX)]

    @classmethod
    def read(cls, headers: Iterable[tuple[str, bytes]]) -> "DeadLetter":
        """Read the headers of a dead letter; what is missing is empty, or -1."""
        found = {
            name.removeprefix(cls._PREFIX): value.decode("utf-8", "replace")
            for name, value in headers
            if name.startswith(cls._PREFIX)
        }
        return cls(
            topic=found.get("topic", ""),
            partition=int(found.get("partition", -1)),
            offset=int(found.get("offset", -1)),
            stage=found.get("stage", ""),
            reason=found.get("reason", ""),
            exception=found.get("exception", ""),
            message=found.get("message", ""),
        )
