"""Open traces of one partition of agent-spans, as a fold over its log.

A pure function of the records, without a state store. The only clock is the time in the records; it
never runs backwards, and time advances before a record is applied. A new owner of the partition
reads the log again from the *low watermark*, the oldest record of a trace that is open or
remembered, and gets the same traces at the same records; those at records below the committed
offset are silent, because their events are on trajectory-events.

A trace is closed when its root arrived some time ago, when no span of it arrived for some time, or
at a limit. It is remembered as long after its last span, so that a later one is late and changes
nothing. Reading again may begin behind the first spans of a trace that was forgotten: its later
spans, which were late, open it again. Being the last, they close and forget it at the times at
which they were forgotten before, so this happens below the committed offset.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec

from schemas.settings import Settings
from streams.spans.reduce import AgentSpan

ClosedBy = Literal["root", "quiet", "age", "memory"]
SpanResult = Literal["accepted", "repeated", "late", "too_many", "too_large", "undecodable"]

MAX_SPANS = 5_000
MAX_BYTES = 4 * 1024 * 1024
"""Of one trace; further spans of it are dropped."""

OPEN_BYTES = 256 * 1024 * 1024
"""Bytes of spans after the first one of a trace that close it: the memory of a partition."""

SPAN_BYTES = 300
"""About what a span takes in memory beside its bytes."""


class Limits(NamedTuple):
    """When a trace is closed and forgotten, in ms of log time."""

    root_ms: int = 30_000
    quiet_ms: int = 60_000
    age_ms: int = 6 * 3_600_000
    open_bytes: int = OPEN_BYTES

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """The limits of the settings."""
        return cls(
            int(settings.otlp_root_seconds * 1000),
            int(settings.otlp_quiet_seconds * 1000),
            int(settings.mine_max_age_seconds * 1000),
        )

    @property
    def remembered_ms(self) -> int:
        """Time after its last span in which a closed trace is remembered."""
        return 2 * max(self.root_ms, self.quiet_ms)


class Resume(NamedTuple):
    """Where and how a new owner of the partition continues; a commit's offset and metadata.

    Attributes:
        start: the low watermark.
        acknowledged: traces closed by records below this offset are published.
        clock: log time before ``start``.
    """

    start: int
    acknowledged: int
    clock: int = 0

    def metadata(self) -> str:
        """The commit's metadata."""
        return msgspec.json.encode((self.acknowledged, self.clock)).decode()

    @classmethod
    def parse(cls, offset: int, metadata: str) -> "Resume":
        """Read a commit; without our metadata nothing is silent, so events may be repeated."""
        try:
            acknowledged, clock = _METADATA.decode(metadata)
        except msgspec.MsgspecError:
            return cls(offset, offset)
        return cls(offset, acknowledged, clock)


_METADATA = msgspec.json.Decoder(tuple[int, int])


class _Head(msgspec.Struct):
    """The beginning of a reduced span."""

    id: str
    parent_id: str


_split = msgspec.json.Decoder(list[msgspec.Raw]).decode
_head = msgspec.json.Decoder(_Head).decode
_span = msgspec.json.Decoder(AgentSpan).decode

encode = msgspec.json.Encoder().encode
"""The value of a record of agent-spans: a list of reduced spans of one trace."""

TICK = b"[]"
"""The value of a tick (no key): its append is its time."""


@dataclass(slots=True)
class _Trace:
    """A trace that is open, or remembered (without spans).

    Attributes:
        offset: of its first record; ``clock`` is the log time before it, ``read`` the bytes.
        opened, touched: log time of its first and last span.
        root_at: log time of its root.
        size: bytes of its spans.
        spans: reduced spans by id, encoded.
    """

    key: str
    offset: int
    clock: int
    opened: int
    read: int
    touched: int
    root_at: int | None = None
    size: int = 0
    spans: dict[str, bytes] = field(default_factory=dict)


class Closed(NamedTuple):
    """A trace that was closed."""

    key: str
    spans: list[AgentSpan]
    reason: ClosedBy


class Fold:
    """State of one partition of agent-spans.

    Attributes:
        counts: of spans by result and of traces by the reason of their close, since the caller
            cleared it; records that are read again silently are not counted.
        clock: log time in ms.
    """

    def __init__(self, limits: Limits | None = None, clock: int = 0) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.clock = clock
        self._limits = limits or Limits()
        self._read = 0
        self._open: dict[str, _Trace] = {}
        self._remembered: dict[str, _Trace] = {}
        self._deadlines: list[tuple[int, int, str]] = []
        self._ends: list[tuple[int, int, str]] = []

    @property
    def open_traces(self) -> int:
        """How many traces wait for their end."""
        return len(self._open)

    def apply(
        self, offset: int, timestamp: int, key: bytes | None, value: bytes, *, silent: bool = False
    ) -> list[Closed]:
        """Apply one record.

        Args:
            offset: of the record, above all earlier ones.
            timestamp: its append time in ms.
            key: id of the trace or conversation; ``None``: a tick.
            value: reduced spans of it.
            silent: what it closes is published already, so it is neither returned nor counted.

        Returns:
            The traces that its time, or its spans, close.
        """
        before = self.clock
        closed = [*self._advance(timestamp, silent)]
        if key is None:
            return closed
        try:
            name, spans = key.decode(), [(_head(raw), bytes(raw)) for raw in _split(value)]
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._count("spans", "undecodable", silent)
            return closed
        trace = self._remembered.get(name)
        if trace is not None:
            trace.touched = self.clock
            self._count("spans", "late", silent, len(spans))
            return closed
        trace = self._open.get(name)
        if trace is None:
            trace = _Trace(name, offset, before, self.clock, self._read, self.clock)
            self._open[name] = trace
            self._watch(trace)
        self._add(trace, spans, silent)
        self._read += len(value) + SPAN_BYTES * len(spans)
        return [*closed, *self._close_largest(silent)]

    def resume(self, next_offset: int, acknowledged: int) -> Resume:
        """What to commit when everything below ``next_offset`` was applied.

        Args:
            next_offset: of the next record.
            acknowledged: traces closed by records below this offset are published.
        """
        oldest = min(
            (*self._open.values(), *self._remembered.values()),
            key=lambda trace: trace.offset,
            default=None,
        )
        if oldest is None:
            return Resume(next_offset, acknowledged, self.clock)
        return Resume(oldest.offset, acknowledged, oldest.clock)

    def _add(self, trace: _Trace, spans: Sequence[tuple[_Head, bytes]], silent: bool) -> None:
        trace.touched = self.clock
        for head, raw in spans:
            result: SpanResult = "accepted"
            if head.id in trace.spans:
                result = "repeated"
            elif len(trace.spans) >= MAX_SPANS:
                result = "too_many"
            elif trace.size + len(raw) > MAX_BYTES:
                result = "too_large"
            else:
                trace.spans[head.id] = raw
                trace.size += len(raw)
            if not head.parent_id and trace.root_at is None:
                trace.root_at = self.clock
                self._watch(trace)
            self._count("spans", result, silent)

    def _deadline(self, trace: _Trace) -> tuple[int, ClosedBy]:
        limits = self._limits
        found: list[tuple[int, ClosedBy]] = [
            (trace.touched + limits.quiet_ms, "quiet"),
            (trace.opened + limits.age_ms, "age"),
        ]
        if trace.root_at is not None:
            found.append((trace.root_at + limits.root_ms, "root"))
        return min(found, key=lambda one: one[0])

    def _watch(self, trace: _Trace) -> None:
        heapq.heappush(self._deadlines, (self._deadline(trace)[0], trace.offset, trace.key))

    def _advance(self, now: int, silent: bool) -> Iterator[Closed]:
        """Advance the clock: close traces, and forget closed ones."""
        self.clock = max(self.clock, now)
        while self._deadlines and self._deadlines[0][0] <= self.clock:
            _, offset, key = heapq.heappop(self._deadlines)
            trace = self._open.get(key)
            if trace is None or trace.offset != offset:
                continue
            deadline, reason = self._deadline(trace)
            if deadline > self.clock:
                self._watch(trace)
            else:
                yield from self._close(trace, reason, silent)
        while self._ends and self._ends[0][0] <= self.clock:
            _, _, key = heapq.heappop(self._ends)
            if self._forgotten_at(self._remembered[key]) <= self.clock:
                del self._remembered[key]
            else:
                self._remember(self._remembered[key])

    def _forgotten_at(self, trace: _Trace) -> int:
        """Late spans postpone it, but they must not hold the low watermark without a limit."""
        limits = self._limits
        return min(trace.touched + limits.remembered_ms, trace.opened + 2 * limits.age_ms)

    def _close_largest(self, silent: bool) -> Iterator[Closed]:
        """Close the oldest traces while more was read after their beginning than memory holds."""
        while self._open:
            oldest = next(iter(self._open.values()))
            if self._read - oldest.read < self._limits.open_bytes:
                return
            yield from self._close(oldest, "memory", silent)

    def _close(self, trace: _Trace, reason: ClosedBy, silent: bool) -> Iterator[Closed]:
        del self._open[trace.key]
        spans, trace.spans = trace.spans, {}
        self._remember(trace)
        if not silent:
            self._count("traces", reason, silent)
            yield Closed(trace.key, [_span(raw) for raw in spans.values()], reason)

    def _remember(self, trace: _Trace) -> None:
        self._remembered[trace.key] = trace
        heapq.heappush(self._ends, (self._forgotten_at(trace), trace.offset, trace.key))

    def _count(self, kind: str, result: str, silent: bool, number: int = 1) -> None:
        if not silent:
            self.counts[kind, result] += number
