"""From a trajectory event to a judged event (DESIGN, "Judge" and "judged-events").

The one thing that is no pure function of the log is a judge's answer. :func:`question` says whether
an answer is needed, :func:`judged` writes it down; between them stands whoever asks.
"""

from typing import Any, Protocol

from schemas.errors import ConfigurationError
from schemas.events import Answer, Browse, End, Other, Parsed, Reasoning, Search, Verdict
from schemas.judged import (
    JudgedAnswer,
    JudgedBrowse,
    JudgedEnd,
    JudgedOther,
    JudgedReasoning,
    JudgedSearch,
    Judgement,
)
from schemas.settings import Settings
from schemas.tokens import count_tokens
from streams.judge.local_judge import LocalJudge, verdict_of
from streams.mine.steps import readable

Event = Search | Browse | Reasoning | Answer | End | Other
Judged = JudgedSearch | JudgedBrowse | JudgedReasoning | JudgedAnswer | JudgedEnd | JudgedOther

AGENT = "agent"
"""Judge of a verdict that the event carries itself; its version is the agent's model."""

NO_JUDGEMENT = Judgement()


class Judge(Protocol):
    """Says whether the document that a reasoning is about helped."""

    @property
    def name(self) -> str:
        """Written beside each verdict."""

    @property
    def version(self) -> str:
        """Changes whenever the same text may get another verdict."""

    async def judge(self, text: str) -> Verdict:
        """The verdict on one reasoning text, which holds more than white space.

        Waits while its server is down; raises only what a restart or a person must settle.
        """

    async def aclose(self) -> None:
        """Release connections; nothing may be asked afterwards."""


class NoJudge:
    """Every browsed document counts as relevant."""

    name = "none"
    version = "1"

    async def judge(self, text: str) -> Verdict:
        """Relevant, whatever was thought."""
        return "relevant"

    async def aclose(self) -> None:
        """Nothing to release."""


def judge_named(settings: Settings) -> Judge:
    """The judge that ``RETRAIL_JUDGE`` names.

    Raises:
        ConfigurationError: ``llm`` without ``RETRAIL_JUDGE_URL``.
    """
    match settings.judge:
        case "local":
            return LocalJudge()
        case "none":
            return NoJudge()
        case "llm":
            try:
                from streams.judge.llm_judge import LlmJudge
            except ImportError as error:  # pragma: no cover - only without the extra
                raise ConfigurationError(
                    f"RETRAIL_JUDGE=llm needs {error.name}: pip install 'retrail-server[streams]'"
                ) from error
            return LlmJudge.of(settings)


def question(event: Event, judge: Judge) -> str | None:
    """The text to ask the judge about; None if the verdict follows without asking."""
    if judge.name == NoJudge.name or not isinstance(event, Reasoning):
        return None
    if event.about is None or event.verdict is not None or not event.text:
        return None
    return None if event.text.isspace() else event.text


def answer_at_once(judge: Judge, text: str) -> Verdict | None:
    """The answer of a judge that only computes; None of one that must be awaited."""
    return verdict_of(text) if isinstance(judge, LocalJudge) else None


def judgement(event: Event, judge: Judge, answer: Verdict | None = None) -> Judgement:
    """Whose verdict the event carries on, given the judge's ``answer`` to its question, if any."""
    if isinstance(event, Browse) and judge.name == NoJudge.name:
        return Judgement(verdict="relevant", judge=judge.name, judge_version=judge.version)
    if not isinstance(event, Reasoning) or event.about is None:
        return NO_JUDGEMENT
    if event.verdict is not None:
        return Judgement(verdict=event.verdict, judge=AGENT, judge_version=event.agent.model)
    if judge.name == NoJudge.name:
        return NO_JUDGEMENT
    return Judgement(verdict=answer or "unknown", judge=judge.name, judge_version=judge.version)


_JUDGED: dict[type[Event], type[Judged]] = {
    Search: JudgedSearch,
    Browse: JudgedBrowse,
    Reasoning: JudgedReasoning,
    Answer: JudgedAnswer,
    End: JudgedEnd,
    Other: JudgedOther,
}


def judged(event: Event, source_offset: int, source_time: int, judgement: Judgement) -> Judged:
    """The event as it goes on: same fields and order, without texts, with its source and verdict.

    Args:
        event: a valid event; nothing is checked again.
        source_offset: of its record on trajectory-events.
        source_time: append time of that record, ms since the epoch.
        judgement: from :func:`judgement`.
    """
    fields = {**event.__dict__, "source_offset": source_offset, "source_time": source_time}
    match event:
        case Reasoning():
            del fields["text"]
            fields |= judgement.__dict__
            fields["tokens"] = _tokens(event)
        case Browse():
            fields |= judgement.__dict__
        case Answer():
            del fields["text"]
    return _construct(_JUDGED[type(event)], fields)


def judged_json(
    parsed: Parsed, value: bytes, source_offset: int, source_time: int, judgement: Judgement
) -> bytes:
    """A judged event as :func:`judged` has it, from the record that holds the event.

    Where all of the event goes on, and nothing else is in the record, its source is added to the
    record's own bytes, which costs nothing beside writing ten hits again. A ``null`` anywhere may
    be a field spelled out that a judged event leaves out, so such a record is written anew.

    Args:
        parsed: what was read.
        value: from these bytes.
        source_offset: as for :func:`judged`.
        source_time: as for :func:`judged`.
        judgement: as for :func:`judged`.
    """
    event = parsed.event
    whole = isinstance(event, Search | End | Other) or (
        isinstance(event, Browse) and judgement.verdict is None
    )
    if whole and not parsed.unknown_fields and b"null" not in value:
        added = with_source(value, source_offset, source_time)
        # A field given twice, first with a value of another type, passes the contract and no miner.
        if readable(added):
            return added
    return judged(event, source_offset, source_time, judgement).to_json()


def with_source(value: bytes, source_offset: int, source_time: int) -> bytes:
    """The bytes of an event, which has fields, and two more."""
    source = b',"source_offset":%d,"source_time":%d}' % (source_offset, source_time)
    return value.rstrip()[:-1] + source


def _construct(model: type[Judged], fields: dict[str, Any]) -> Judged:
    """``model_construct`` with all fields given, at a tenth of its cost."""
    made = model.__new__(model)
    for name, value in (
        ("__dict__", fields),
        ("__pydantic_fields_set__", set(fields)),
        ("__pydantic_extra__", None),
        ("__pydantic_private__", None),
    ):
        object.__setattr__(made, name, value)
    return made


def _tokens(event: Reasoning) -> int | None:
    """Length of a reasoning about a browse: as the event says, else as counted here."""
    if event.about is None:
        return None
    if event.tokens is not None or event.text is None:
        return event.tokens
    return count_tokens(event.text)


async def judge_event(event: Event, judge: Judge, source_offset: int, source_time: int) -> Judged:
    """Ask the judge if need be, and write its answer down."""
    text = question(event, judge)
    answer = None if text is None else await judge.judge(text)
    return judged(event, source_offset, source_time, judgement(event, judge, answer))
