"""Records that cannot be judged: set aside with the reason, and with the bytes as they came."""

from typing import Literal

from retrail_runtime.kafka import record_size
from schemas.events import InvalidEventError, InvalidReason, Parsed, parse
from schemas.headers import DeadLetter
from schemas.topics import ADDED_BYTES, MAX_EVENT_BYTES
from streams.loop.outbox import Output
from streams.loop.source import Record

STAGE = "judge"

RejectReason = InvalidReason | Literal["wrong_key", "too_large"]

_LONGEST_MESSAGE = 2_000


class Rejected(ValueError):
    """A record that is no event of the contract; ``reason`` is a metric label."""

    def __init__(self, reason: RejectReason, message: str) -> None:
        super().__init__(message)
        self.reason: RejectReason = reason


def read(record: Record) -> Parsed:
    """The event of a record of trajectory-events.

    Raises:
        Rejected: it has no value, is no event, or its key is not the trajectory's id (the order of
            a trajectory's events rests on the key).
    """
    if record.value is None:
        raise Rejected("malformed_json", "the record has no value")
    try:
        parsed = parse(record.value)
    except InvalidEventError as error:
        raise Rejected(error.reason, str(error)) from error
    if record.key != parsed.event.trajectory_id.encode():
        raise Rejected("wrong_key", f"key {record.key!r} is not the trajectory_id")
    return parsed


def fits(output: Output, limit: int = MAX_EVENT_BYTES + ADDED_BYTES) -> bool:
    """Whether a topic whose largest batch is ``limit`` bytes takes the record."""
    return record_size(*output) <= limit


def dead_letter(record: Record, topic: str, partition: int, error: Rejected) -> Output:
    """What goes to the dead letter queue.

    A record that is too large even for that goes without its value; the headers say where it is.
    """
    cause = error.__cause__ or error
    letter = DeadLetter(
        topic=topic,
        partition=partition,
        offset=record.offset,
        stage=STAGE,
        reason=error.reason,
        exception=type(cause).__name__,
        message=str(error)[:_LONGEST_MESSAGE],
    )
    whole = Output(record.key, record.value, letter.headers(record.headers))
    if record.key is None and record.value is None:
        return whole._replace(value=b"")
    if fits(whole):
        return whole
    return Output(record.key, b"", letter.headers())
