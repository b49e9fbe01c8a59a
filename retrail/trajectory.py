"""A trajectory as the agent sees it: steps in, numbered events out."""

import os
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Self

from retrail import wire
from retrail.errors import ClosedError, InvalidEventError, PublishError
from retrail.outbox import Outbox
from retrail.texts import Redacted, TextPolicy, count_tokens, redact

Step = tuple[str, wire.Data | None]
"""Type and data of an event; no data if the arguments made none."""


@dataclass(frozen=True, slots=True)
class TextPolicies:
    """What leaves the process of an agent's texts."""

    reasoning: TextPolicy
    answer: TextPolicy


class Trajectory:
    """One agent's work on one task, from its first step to its end.

    Made by :meth:`retrail.Publisher.trajectory`. Every method publishes one event and returns at
    once (see :class:`~retrail.Timeout`). Leaving the block ends the trajectory, with outcome
    ``unknown`` unless :meth:`end` was called; an exception that leaves the block ends it too, and
    propagates. In an asyncio agent write ``async with`` or ``with``: neither waits for the broker.

    Methods may be called from several threads. The events are numbered in the order of the calls,
    and a reasoning is about a browse only if that was the call right before.

    **Rejected events still consume a sequence number**, so the gap is visible downstream: the
    trajectory's pairs are flagged with it. If the first event is rejected, so are all others: a
    trajectory without a start cannot be mined. With ``on_error="raise"`` a call that raised may be
    repeated with the same arguments; it then takes the number it had, and leaves no gap.

    A trajectory belongs to the process that opened it. In a forked child its calls are rejected,
    and leaving the block there sends nothing.

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
    ) -> None:
        self._outbox, self._policies = outbox, policies
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._seq = 0
        self._opened = self._ended = False
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

    @property
    def id(self) -> str:
        """The trajectory's id, the key of its events.

        Example:
            >>> publisher.trajectory("task-17").id  # doctest: +SKIP
            'task-17'
        """
        return self._sender.trajectory_id

    def search(
        self, query: str, hits: Iterable[object], *, retriever_version: int | None = None
    ) -> None:
        """One query and the hits that the agent saw, best first.

        A tool that runs several queries publishes several searches.

        Args:
            query: as it was sent to the retriever.
            hits: document ids, pairs (document id, score), or mappings or objects with ``doc_id``
                and, if they like, ``rank`` and ``score``. Ranks are 1, 2, … unless given.
            retriever_version: version of the retriever that answered, if the agent knows it; it
                stays in force for the events that follow.

        Example:
            >>> trajectory.search("bridge 1965", [("d7", 0.81), ("d2", 0.78)])  # doctest: +SKIP
        """

        def build() -> wire.Data:
            data = wire.search(query, hits)
            version = wire.version_of(retriever_version)
            if version is not None:
                self._retriever_version = version
            return data

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
    ) -> None:
        """What the agent thought; right after a browse it is about that document.

        Args:
            text: the reasoning. The publisher's ``reasoning_text`` applies to it; if that changes
                it, its length in tokens is sent, too.
            tokens: length, if the agent knows it better (its own tokenizer) or gives no text.
            verdict: whether the document helped, if the agent decides it; no judge is asked.

        Example:
            >>> trajectory.reason("The page is about another bridge.")  # doctest: +SKIP
            >>> trajectory.reason(tokens=212, verdict="relevant")  # doctest: +SKIP
        """

        def build() -> wire.Data:
            if text is None:
                return wire.reasoning(None, tokens, verdict)
            sent = self._redacted(text, self._policies.reasoning)
            length = count_tokens(text) if tokens is None and sent.changed else tokens
            return wire.reasoning(sent.text, length, verdict)

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

    def end(self, outcome: Literal["correct", "incorrect", "unknown"] = "unknown") -> None:
        """The trajectory is over; nothing can follow.

        Example:
            >>> trajectory.end("correct")  # doctest: +SKIP
        """
        self._outcome = outcome
        self._publish("end", lambda: wire.end(outcome))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        leaving: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._ended or not self._opened or self._is_foreign():
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

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        leaving: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(type_, leaving, traceback)

    def _publish(self, kind: str, build: Callable[[], wire.Data]) -> None:
        step: Step = (kind, None)
        try:
            self._require_mine()
            data = build()
            step = (kind, data)
            self._send(kind, data)
        except Exception as error:
            self._refuse(step, error)

    def _send(self, kind: str, data: wire.Data) -> None:
        event_id, at = uuid.uuid4().hex, datetime.now(UTC)

        def attempt() -> bool:
            with self._lock:
                seq = self._number_of((kind, data))
                self._require_open(seq)
                about = {"about": self._browsed} if kind == "reasoning" and self._browsed else {}
                record = wire.record(
                    self._sender,
                    kind=kind,
                    data=data | about,
                    seq=seq,
                    event_id=event_id,
                    at=at,
                    retriever_version=self._retriever_version,
                )
                if not self._outbox.enqueue(record):
                    return False
                self._seq, self._to_repeat, self._opened = seq + 1, None, True
                self._browsed = data["doc_id"] if kind == "browse" else None
                self._ended = kind == "end"
                return True

        self._outbox.publish(attempt)

    def _number_of(self, step: Step) -> int:
        """The next number, after that of a rejected step unless this repeats it."""
        skips = self._to_repeat is not None and self._to_repeat != step
        return self._seq + 1 if skips else self._seq

    def _refuse(self, step: Step, error: Exception) -> None:
        """Use up the number of a step that was not published; raise, or count it."""
        seq = self._seq
        if not self._is_foreign():
            with self._lock:
                seq = self._number_of(step)
                if not self._ended:
                    self._browsed = None
                    raises = self._outbox.raises
                    self._seq, self._to_repeat = (seq, step) if raises else (seq + 1, None)
        self._outbox.refuse(error, self.id, seq, step[0])

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
                f"Trajectory {self.id} was opened by process {self._pid} and is published from "
                "there; open another one in a forked process."
            )

    def _require_open(self, seq: int) -> None:
        if self._ended:
            raise ClosedError(f"Trajectory {self.id} has ended; open a new one.")
        if seq > 0 and not self._opened:
            raise ClosedError(
                f"The first event of trajectory {self.id} was rejected, so the others are too: "
                "without its start it cannot be mined."
            )
