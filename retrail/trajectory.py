"""A trajectory: steps of an agent in, numbered events out."""

import os
import re
import threading
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Self

from retrail import wire
from retrail.errors import ClosedError, InvalidEventError, PublishError
from retrail.outbox import Outbox

TextPolicy = Literal["send", "withhold"] | Callable[[str], str | None]
"""``"send"``, ``"withhold"``, or a function that redacts a text (``None``: withhold it)."""

_TOKEN = re.compile(r"\w+|[^\w\s]")


def count_tokens(text: str) -> int:
    """Number of runs of word characters and single other marks: the rule of ``schemas.tokens``.

    The client imports nothing else of Retrail, so the rule is written here again.

    >>> count_tokens("It doesn't help.")
    6
    """
    return sum(1 for _ in _TOKEN.finditer(text))


@dataclass(frozen=True, slots=True)
class Redacted:
    """The text to send; ``changed``: it differs from the agent's.

    ``failure`` is the class of the hook's exception; the message, which may quote the text, is
    dropped.
    """

    text: str | None
    changed: bool
    failure: str | None = None


def redact(text: str, policy: TextPolicy) -> Redacted:
    """Apply a policy to a text; a hook that fails withholds it.

    >>> redact("my name is Ann", lambda text: text.replace("Ann", "…")).text
    'my name is …'
    """
    if policy == "send":
        return Redacted(text, changed=False)
    if not callable(policy):
        return Redacted(None, changed=True)
    try:
        result = policy(text)
    except Exception as error:
        return Redacted(None, changed=True, failure=type(error).__name__)
    if result is not None and not isinstance(result, str):
        return Redacted(None, changed=True, failure=f"returned {type(result).__name__}")
    return Redacted(result, changed=result != text)


Step = tuple[str, wire.Data | None]
"""Type and data of an event; no data if the arguments made none."""


@dataclass(frozen=True, slots=True)
class TextPolicies:
    """Which of an agent's texts leave the process."""

    query: TextPolicy
    reasoning: TextPolicy
    answer: TextPolicy


class Trajectory:
    """One agent's work on one task, from its first step to its end.

    Made by :meth:`retrail.Publisher.trajectory`. Every method publishes one event and returns at
    once (see :class:`~retrail.Timeout`). Leaving the block ends the trajectory, with outcome
    ``unknown`` unless :meth:`end` was called; an exception that leaves the block ends it too, and
    propagates. In an asyncio agent write ``async with`` or ``with``: neither waits for the broker.

    Methods may be called from several threads. Events are numbered in the order of the calls; a
    reasoning is about a browse only if that was the previous call.

    **Rejected events still consume a sequence number**, so the gap is visible downstream: the
    trajectory's pairs are flagged with it. If the first event is rejected, so are all others: a
    trajectory without a start cannot be mined. With ``on_error="raise"`` a failed call may be
    repeated with the same arguments; it then gets the same number and leaves no gap.

    A trajectory belongs to the process that opened it. In a forked child its calls are rejected,
    and leaving the block there sends nothing.

    **An unnumbered trajectory** may be continued by any process that knows its id, such as one of
    several replicas of a server: its events have no number, and their order is that of the log. A
    reasoning is about the browse right before it on the log. Wait for :attr:`acknowledged` before
    another process publishes the next event. Leaving the block does not end it.

    Example:
        >>> with publisher.trajectory() as trajectory:  # doctest: +SKIP
        ...     trajectory.search("when was the bridge built", ["d7", "d2"])
        ...     trajectory.browse("d2")
        ...     trajectory.reason("It gives the year: 1965.")
        ...     trajectory.answer("1965")
        ...     trajectory.end("correct")
    """

    def __init__(
        self,
        outbox: Outbox,
        policies: TextPolicies,
        *,
        trajectory_id: str,
        agent: str,
        model: str,
        tenant: str,
        retriever_version: int | None,
        numbered: bool = True,
    ) -> None:
        self._outbox, self._policies, self._numbered = outbox, policies, numbered
        self._acknowledged: Future[bool] | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._seq = 0
        self._opened, self._ended = not numbered, False
        self._outcome: object = "unknown"
        self._browsed: str | None = None
        self._to_repeat: Step | None = None
        self._retriever_version: int | None = None
        self._cannot_start: InvalidEventError | None = None
        self._sender = wire.Sender("none", "", "", "")
        try:
            self._sender = wire.Sender(trajectory_id, agent, model, tenant)
            self._retriever_version = wire.version_of(retriever_version)
        except InvalidEventError as error:
            if outbox.raises:
                raise
            self._cannot_start = error

    def __repr__(self) -> str:
        return f"Trajectory({self.id!r}, agent={self._sender.agent!r})"

    @property
    def id(self) -> str:
        """The trajectory's id, the key of its events.

        Example:
            >>> publisher.trajectory("task-17").id  # doctest: +SKIP
            'task-17'
        """
        return self._sender.trajectory_id

    @property
    def acknowledged(self) -> Future[bool] | None:
        """Of an unnumbered trajectory: whether the broker has acknowledged the last event.

        ``None`` before the first event. Earlier events of the trajectory are acknowledged before.

        Example:
            >>> trajectory.acknowledged.result(timeout=1.0)  # doctest: +SKIP
            True
        """
        return self._acknowledged

    def search(
        self, query: str, hits: Iterable[object], *, retriever_version: int | None = None
    ) -> None:
        """One query and its hits, best first.

        A tool that runs several queries publishes several searches.

        Args:
            query: as sent to the retriever, not blank; the publisher's ``query_text`` applies.
            hits: document ids, pairs (document id, score), or mappings or objects with ``doc_id``
                and optionally ``rank`` and ``score``. Ranks are 1, 2, … unless given.
            retriever_version: version of the retriever that answered, if known; it also applies
                to the following events.

        Example:
            >>> trajectory.search("bridge 1965", [("d7", 0.81), ("d2", 0.78)])  # doctest: +SKIP
        """

        def build() -> wire.Data | None:
            data = wire.search(query, hits)
            version = wire.version_of(retriever_version)
            if version is not None:
                self._retriever_version = version
            sent = self._redacted(query, self._policies.query).text
            return data | {"query": sent} if sent and sent.strip() else None

        self._publish("search", build)

    def browse(self, doc_id: str) -> None:
        """The agent opened a document.

        Example:
            >>> trajectory.browse("d2")  # doctest: +SKIP
        """
        self._publish("browse", lambda: wire.browse(doc_id))

    def reason(
        self,
        text: str | None = None,
        *,
        tokens: int | None = None,
        verdict: Literal["relevant", "irrelevant"] | None = None,
        about: str | None = None,
    ) -> None:
        """A reasoning of the agent; right after a browse it is about that document.

        Args:
            text: the reasoning. The publisher's ``reasoning_text`` applies to it; if that changes
                it, its length in tokens is sent as well.
            tokens: length by the agent's own tokenizer, or without a text.
            verdict: whether the document helped; it replaces the judge's.
            about: the document, for a process that may not have published the browse. A reasoning
                about another document than that of the browse right before it gives no pair.

        Example:
            >>> trajectory.reason("The page is about another bridge.")  # doctest: +SKIP
            >>> trajectory.reason(tokens=212, verdict="relevant")  # doctest: +SKIP
        """

        def build() -> wire.Data:
            if text is None:
                return wire.reasoning(None, tokens, verdict, about)
            sent = self._redacted(text, self._policies.reasoning)
            length = count_tokens(text) if tokens is None and sent.changed else tokens
            return wire.reasoning(sent.text, length, verdict, about)

        self._publish("reasoning", build)

    def answer(self, text: str | None = None) -> None:
        """The agent answered its task; the publisher's ``answer_text`` applies to the text.

        Example:
            >>> trajectory.answer("1965")  # doctest: +SKIP
        """

        def build() -> wire.Data:
            if text is None:
                return wire.answer(None)
            return wire.answer(self._redacted(text, self._policies.answer).text)

        self._publish("answer", build)

    def other(self, name: str) -> None:
        """A step that mining ignores, such as a calculator call.

        A reasoning after it is not about the browse before it.

        Example:
            >>> trajectory.other("calculator")  # doctest: +SKIP
        """
        self._publish("other", lambda: wire.other(name))

    def end(
        self,
        outcome: Literal["correct", "incorrect", "unknown"] = "unknown",
        *,
        flush: float | None = None,
    ) -> None:
        """End the trajectory; no event can follow.

        Args:
            flush: seconds to wait until the events of this process are delivered, as
                :meth:`retrail.Publisher.flush` does: for processes that a signal ends.

        Example:
            >>> trajectory.end("correct", flush=5.0)  # doctest: +SKIP
        """
        self._outcome = outcome
        self._publish("end", lambda: wire.end(outcome))
        if flush is not None:
            self._outbox.flush(flush)
            self._outbox.raise_failures()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: object, leaving: object, _traceback: object) -> None:
        if self._ended or not self._opened or not self._numbered or self._is_foreign():
            return
        outcome = self._outcome if self._outcome in wire.OUTCOMES else "unknown"
        try:
            self._publish("end", lambda: wire.end(outcome))
        except PublishError as error:
            if leaving is None:
                raise
            self._outbox.warn("an event was not published", error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *leaving: object) -> None:
        self.__exit__(*leaving)

    def _publish(self, kind: str, build: Callable[[], wire.Data | None]) -> None:
        """Publish an event; without data another step stands for it."""
        step: Step = (kind, None)
        try:
            self._require_mine()
            data = build()
            if data is None:
                kind, data = "other", wire.other(kind)
            step = (kind, data)
            self._send(kind, data)
        except Exception as error:
            self._refuse(step, error)

    def _send(self, kind: str, data: wire.Data) -> None:
        event_id, at = uuid.uuid4().hex, datetime.now(UTC)
        acknowledged: Future[bool] | None = None if self._numbered else Future()

        def attempt() -> bool:
            with self._lock:
                seq = self._number_of((kind, data))
                self._require_open(seq)
                unnamed = kind == "reasoning" and "about" not in data
                about = self._about() if unnamed else {}
                record = wire.record(
                    self._sender,
                    kind=kind,
                    data=data | about,
                    seq=seq if self._numbered else None,
                    event_id=event_id,
                    at=at,
                    retriever_version=self._retriever_version,
                )
                on_delivery = None if acknowledged is None else acknowledged.set_result
                if not self._outbox.enqueue(record, on_delivery=on_delivery):
                    return False
                self._acknowledged = acknowledged
                self._seq, self._to_repeat, self._opened = seq + 1, None, True
                self._browsed = data["doc_id"] if kind == "browse" else None
                self._ended = kind == "end"
                return True

        self._outbox.publish(attempt)

    def _about(self) -> wire.Data:
        if not self._numbered:
            return {"about_previous": True}
        return {"about": self._browsed} if self._browsed else {}

    def _number_of(self, step: Step) -> int:
        """The next number; that of a rejected step is skipped unless this step repeats it."""
        skips = self._to_repeat is not None and self._to_repeat != step
        return self._seq + 1 if skips else self._seq

    def _refuse(self, step: Step, error: Exception) -> None:
        """Skip the number of a step that was not published; raise, or count it."""
        seq = self._seq
        if not self._is_foreign():
            with self._lock:
                seq = self._number_of(step)
                if not self._ended:
                    self._browsed = None
                    raises = self._outbox.raises
                    self._seq, self._to_repeat = (seq, step) if raises else (seq + 1, None)
                if not self._numbered:
                    self._acknowledged = Future()
                    self._acknowledged.set_result(False)
        self._outbox.refuse(error, self.id, seq if self._numbered else None, step[0])

    def _redacted(self, text: str, policy: TextPolicy) -> Redacted:
        result = redact(wire.text_of("text", text), policy)
        if result.failure is not None:
            self._outbox.count("redaction_failures")
            self._outbox.warn("a redaction hook failed, the text is withheld", result.failure)
        return result

    def _is_foreign(self) -> bool:
        return os.getpid() != self._pid

    def _require_mine(self) -> None:
        if self._cannot_start is not None:
            raise self._cannot_start
        if self._is_foreign():
            raise ClosedError(
                f"Trajectory {self.id} belongs to process {self._pid}; open a new one in a forked "
                "process."
            )

    def _require_open(self, seq: int) -> None:
        if self._ended:
            raise ClosedError(f"Trajectory {self.id} has ended; open a new one.")
        if seq > 0 and not self._opened:
            raise ClosedError(
                f"The first event of trajectory {self.id} was rejected, so all others are too: a "
                "trajectory without a start cannot be mined."
            )
