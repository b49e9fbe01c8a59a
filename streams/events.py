"""The events of ``trajectory-events`` and ``judged-events`` as judge and miner read and write them.

The contract is :mod:`schemas.events` and :mod:`schemas.judged`. These structs are the same events:
msgspec decodes a search with ten hits in 3 µs where pydantic takes 13. The readers accept
what the contract accepts, with equal values, and reject the rest for the contract's reasons:
``tests/streams/test_events.py`` compares the two on generated records.
"""

import re
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from schemas import events as published_contract
from schemas import judged as judged_contract
from schemas.events import SCHEMA_VERSION, Outcome, Verdict

Name = Annotated[str, Meta(max_length=128)]
Id = Annotated[str, Meta(min_length=1, max_length=512)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Version = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]
TopicId = Annotated[str, Meta(min_length=1, max_length=64)]
Query = Annotated[str, Meta(pattern=r"\S")]
Text = str | UnsetType | None
Label = Name | UnsetType | None

ABSENT = -1
"""An absent number: the source of an event that is not judged yet, or its skipped offsets."""


class Agent(Struct, forbid_unknown_fields=True, gc=False):
    """Who acted."""

    name: Name
    model: Name


class Hit(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One result of a search."""

    doc_id: Id
    rank: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    score: float | None = None


class Envelope(
    Struct, tag_field="type", kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False
):
    """What every event carries; only a judged event has a source.

    ``occurred_at`` stays as it was written: nothing here needs the time, and msgspec rounds
    nanoseconds where pydantic cuts them off.
    """

    event_id: Annotated[str, Meta(min_length=1, max_length=256)]
    trajectory_id: Id
    seq: Count | None = None
    occurred_at: Raw
    agent: Agent
    tenant: Name = ""
    retriever_version: Version | None = None
    # The value of a default_factory is never omitted: every event names its version.
    schema_version: str = field(default_factory=lambda: SCHEMA_VERSION)
    source_topic_id: TopicId = ""
    source_partition: Count = ABSENT
    source_offset: Offset = ABSENT
    source_time: Offset = ABSENT
    skipped_from: Offset = ABSENT


class Search(Envelope, tag="search", kw_only=True):
    """A query and its hits."""

    query: Query
    hits: list[Hit]


class Judgement(Envelope, kw_only=True):
    """An event that may carry a verdict."""

    verdict: Verdict | UnsetType | None = UNSET
    judge: Label = UNSET
    judge_version: Label = UNSET


class Browse(Judgement, tag="browse", kw_only=True):
    """The agent opened a document."""

    doc_id: Id


class Reasoning(Judgement, tag="reasoning", kw_only=True):
    """What the agent thought; a judged one has no text."""

    text: Text = UNSET
    tokens: Count | None = None
    about: Id | None = None
    about_previous: bool | None = None

    @property
    def is_about_browse(self) -> bool:
        """Whether it is about a browse, named or not."""
        return self.about is not None or self.about_previous is True


class Answer(Envelope, tag="answer", kw_only=True):
    """The agent answered its task; a judged one has no text."""

    text: Text = UNSET


class End(Envelope, tag="end", kw_only=True):
    """The trajectory is over."""

    outcome: Outcome = "unknown"


class Other(Envelope, tag="other", kw_only=True):
    """A step that means nothing to mining, except that it ends a run of browses."""

    name: Annotated[str, Meta(max_length=256)]


class Tick(Struct, tag_field="type", tag="tick", forbid_unknown_fields=True, omit_defaults=True):
    """Time passes: see :class:`schemas.judged.Tick`."""

    as_of: Offset | None = None


class Skipped(Struct, tag_field="type", tag="skipped", forbid_unknown_fields=True):
    """Offsets of the source without a judged event: see :class:`schemas.judged.Skipped`."""

    source_topic_id: TopicId
    source_partition: Count
    source_offset: Offset
    skipped_from: Offset


Event = Search | Browse | Reasoning | Answer | End | Other
"""A trajectory event, published or judged."""

encode = msgspec.json.Encoder().encode
"""The value of a record."""

_decode = msgspec.json.Decoder(Event | Tick | Skipped).decode
_decode_moment = msgspec.json.Decoder(Annotated[datetime, Meta(tz=True)]).decode
_READABLE_VERSION = re.compile(rf"{SCHEMA_VERSION.partition('.')[0]}\.[0-9]{{1,6}}")
_NOT_DECODED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_NO_EVENT = (Tick, Skipped)


def read_published(value: bytes) -> tuple[Event, int]:
    """An event of trajectory-events, and how many fields of a newer minor version it had.

    Raises:
        InvalidRecordError: it breaks the contract; with the reason.
    """
    event = _decoded(value)
    if event is not None and not isinstance(event, _NO_EVENT) and _is_published(event):
        return event, 0
    parsed = published_contract.parse(value)
    again = _decode(parsed.event.to_json())
    assert not isinstance(again, _NO_EVENT)
    return again, parsed.unknown_fields


def read_judged(value: bytes) -> Event | Tick | Skipped:
    """An event of judged-events.

    Raises:
        InvalidRecordError: it breaks the contract; with the reason.
    """
    event = _decoded(value)
    if event is not None and (isinstance(event, _NO_EVENT) or _is_judged(event)):
        return event
    again: Event | Tick | Skipped = _decode(judged_contract.parse(value).event.to_json())
    return again


def _decoded(value: bytes) -> Event | Tick | Skipped | None:
    """The structs' view of a record; ``None`` where the contract must decide.

    msgspec alone rejects little that the contract accepts: some forms of times, fields that are
    given twice, and a newer minor version's unknown fields.
    """
    try:
        event = _decode(value)
        if isinstance(event, _NO_EVENT):
            return event
        _decode_moment(event.occurred_at)
    except _NOT_DECODED:
        return None
    version = event.schema_version
    return event if version == SCHEMA_VERSION or _READABLE_VERSION.fullmatch(version) else None


def _is_published(event: Event) -> bool:
    """Whether it has no field that only the judge writes."""
    if event.source_offset != ABSENT or event.source_time != ABSENT:
        return False
    if event.source_topic_id or event.source_partition != ABSENT or event.skipped_from != ABSENT:
        return False
    if not isinstance(event, Judgement):
        return True
    if event.judge is not UNSET or event.judge_version is not UNSET:
        return False
    return event.verdict is UNSET if isinstance(event, Browse) else event.verdict != "unknown"


def _is_judged(event: Event) -> bool:
    """Whether it has its source, and no field that the judge removes."""
    if event.source_offset == ABSENT or event.source_time == ABSENT:
        return False
    if not event.source_topic_id or event.source_partition == ABSENT:
        return False
    return not isinstance(event, (Reasoning, Answer)) or event.text is UNSET
