"""Judged events: every valid event in the same order, with verdicts and without texts.

Topic ``judged-events``, key ``trajectory_id``, the same partition as the source record. A judge's
answer is not a pure function of the log, so it is put on the log here; all that follows is a fold.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from schemas.base import Contract, Count, DocId, Offset
from schemas.events import Browse, End, Envelope, Other, Parsed, Search, Verdict, parse_with

JudgeLabel = Annotated[str, Field(max_length=128)]


TopicId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=64,
        description="id that Kafka gave to the source topic when it was created; with a suffix "
        "behind a point if its log was cut since",
    ),
]


class Source(Contract):
    """The record of trajectory-events that a judged event is made from."""

    source_topic_id: TopicId
    source_partition: Count
    source_offset: Offset
    skipped_from: Annotated[
        Offset | None,
        Field(
            description="the source's offsets from here to the one before source_offset have no "
            "judged event (dead letters, records that are gone, control markers of transactions); "
            "absent if there are none"
        ),
    ] = None
    source_time: Annotated[Offset, Field(description="append time of the source record, ms epoch")]


class Judgement(Contract):
    """A verdict, who gave it (``agent``: the event itself), and that judge's version."""

    verdict: Verdict | None = None
    judge: JudgeLabel | None = None
    judge_version: JudgeLabel | None = None


class JudgedSearch(Source, Search):
    """A search, as published."""


class JudgedBrowse(Source, Judgement, Browse):
    """A browse; it carries a verdict under judge ``none`` only."""


class JudgedReasoning(Source, Judgement, Envelope):
    """A reasoning; one about a browse has tokens and, except under judge ``none``, a verdict."""

    type: Literal["reasoning"] = "reasoning"
    about: DocId | None = None
    about_previous: bool | None = None
    tokens: Count | None = None


class JudgedAnswer(Source, Envelope):
    """An answer, without its text."""

    type: Literal["answer"] = "answer"


class JudgedEnd(Source, End):
    """The end, as published."""


class JudgedOther(Source, Other):
    """Another step, as published."""


class Tick(Contract):
    """Advances log time: written once a second (null key) while the judge has nothing to read.

    The last one is written when no trajectory can be open any more. With ticks a miner closes idle
    trajectories without a clock of its own. A tick may reach the log late (a slow broker, a judge
    that was suspended), before events that reached the source earlier than the tick was appended.
    So its time is ``as_of``, but no later than its append, because the judge's clock may be ahead.
    The time of a tick without ``as_of`` is its append.
    """

    type: Literal["tick"] = "tick"
    as_of: Annotated[
        Offset | None,
        Field(
            description="until when all that was appended to the source had been judged, by the "
            "judge's clock, ms epoch"
        ),
    ] = None


class Skipped(Contract):
    """Offsets of the source without a judged event, when none follows yet (null key)."""

    type: Literal["skipped"] = "skipped"
    source_topic_id: TopicId
    source_partition: Count
    source_offset: Annotated[Offset, Field(description="the last of them")]
    skipped_from: Annotated[Offset, Field(description="the first of them")]


Judged = JudgedSearch | JudgedBrowse | JudgedReasoning | JudgedAnswer | JudgedEnd | JudgedOther
"""A trajectory event after judgement."""

adapter: TypeAdapter[Judged | Tick | Skipped] = TypeAdapter(
    Annotated[Judged | Tick | Skipped, Field(discriminator="type")]
)


def parse(value: bytes) -> Parsed[Judged | Tick | Skipped]:
    """Read the value of a judged-events record.

    Raises:
        InvalidRecordError: it is not JSON, not an event, or of another major version.
    """
    return parse_with(adapter, value)
