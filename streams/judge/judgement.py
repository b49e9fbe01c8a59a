"""From a published event to a judged one: the judge, its question, and the judged event.

A judge's answer is the one thing that is not a pure function of the log. :func:`question` is the
text that needs an answer, :func:`judged` writes it into the event, :func:`located` its source.
"""

import math
from typing import Protocol

from msgspec import UNSET

from schemas.events import Verdict, count_tokens
from schemas.settings import Settings
from streams.events import ABSENT, Answer, Browse, Event, Reasoning

AGENT = "agent"
"""Judge of a verdict that the agent gave; its version is the agent's model."""

NO_JUDGE, NO_JUDGE_VERSION = "none", "1"
"""Judge of a browse without a judge: every browsed document counts as relevant."""


class Judge(Protocol):
    """Decides from a reasoning whether its document helped."""

    @property
    def name(self) -> str:
        """Written with each verdict."""

    @property
    def version(self) -> str:
        """Changes whenever the same text may get another verdict."""

    def verdict(self, text: str) -> Verdict | None:
        """The verdict on a text with more than white space; ``None``: await :meth:`judge`."""

    async def judge(self, text: str) -> Verdict:
        """The verdict on a text with more than white space.

        Waits while its server is down; raises only what needs a restart or an operator.
        """

    async def aclose(self) -> None:
        """Release connections; no call may follow."""


def judge_named(settings: Settings, patience: float = math.inf) -> Judge | None:
    """The judge that ``RETRAIL_JUDGE`` names; ``None`` for ``none``.

    Args:
        patience: seconds for which a server may be away.

    Raises:
        ConfigurationError: ``llm`` without ``RETRAIL_JUDGE_URL`` or ``RETRAIL_JUDGE_MODEL``.
    """
    # Imported here: each one loads what the other does not need (weights, an HTTP client).
    match settings.judge:
        case "none":
            return None
        case "local":
            from streams.judge.local import LocalJudge

            return LocalJudge()
        case "llm":
            from streams.judge.llm import LlmJudge

            return LlmJudge(settings, patience=patience)


def question(event: Event) -> str | None:
    """The text that needs a verdict; ``None`` if the verdict follows without a judge."""
    if not isinstance(event, Reasoning) or not event.is_about_browse or event.verdict:
        return None
    return event.text if event.text and not event.text.isspace() else None


def located(
    event: Event,
    topic_id: str,
    partition: int,
    offset: int,
    time: int,
    skipped_from: int = ABSENT,
) -> Event:
    """The event with its source.

    Args:
        event: a published event; it is changed, and returned.
        topic_id: of trajectory-events.
        partition: of it.
        offset: of the event's record.
        time: append time of that record, ms since the epoch.
        skipped_from: first of the offsets right before it that have no judged event.
    """
    event.source_topic_id, event.source_partition = topic_id, partition
    event.source_offset, event.source_time = offset, max(0, time)
    event.skipped_from = skipped_from
    return event


def judged(event: Event, judge: Judge | None, answer: Verdict | None = None) -> Event:
    """The event as it is written: without texts, with its verdict.

    Args:
        event: a published event; it is changed, and returned.
        judge: ``None`` for the judge ``none``.
        answer: of the judge to :func:`question`; without an answer the verdict is ``unknown``.
    """
    match event:
        case Reasoning():
            _judge_reasoning(event, judge, answer)
            event.tokens = _tokens(event)
            event.text = UNSET
        case Browse() if judge is None:
            event.verdict, event.judge = "relevant", NO_JUDGE
            event.judge_version = NO_JUDGE_VERSION
        case Answer():
            event.text = UNSET
    return event


def _judge_reasoning(event: Reasoning, judge: Judge | None, answer: Verdict | None) -> None:
    if not event.is_about_browse:
        event.verdict = UNSET
    elif event.verdict:
        event.judge, event.judge_version = AGENT, event.agent.model
    elif judge is None:
        event.verdict = UNSET
    else:
        event.verdict, event.judge = answer or "unknown", judge.name
        event.judge_version = judge.version


def _tokens(event: Reasoning) -> int | None:
    """Length of a reasoning about a browse: the event's own, else counted here."""
    if not event.is_about_browse:
        return None
    if event.tokens is not None or not isinstance(event.text, str):
        return event.tokens
    return count_tokens(event.text)
