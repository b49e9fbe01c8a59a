"""The metrics of the worker ``otlp``."""

from typing import get_args

from prometheus_client import Counter, Gauge

from retrail_runtime.metrics import at_zero
from streams.spans.dialects import DIALECTS
from streams.spans.fold import ClosedBy, SpanResult
from streams.spans.reduce import Lack

UNKNOWN = "unknown"
"""Dialect of a span that follows no known convention."""

REASONS = (*get_args(Lack), "no_id", "no_search", "served", "invalid_event", "oversize_event")

OTLP_REQUESTS = Counter(
    "retrail_otlp_requests_total", "Records of otlp_spans, by result.", ["result"]
)
SPANS = Counter(
    "retrail_otlp_spans_total",
    "Spans by the convention that they follow (unknown: none), and invalid ones.",
    ["dialect"],
)
TRACE_SPANS = Counter(
    "retrail_otlp_trace_spans_total",
    "Reduced spans by what became of them in their trace (accepted, repeated, late, too_many, "
    "too_large, undecodable).",
    ["result"],
)
TRACES = Counter(
    "retrail_otlp_traces_total",
    "Closed traces, by reason (root: its root arrived, quiet, age, memory).",
    ["reason"],
)
OPEN_TRACES = Gauge("retrail_otlp_open_traces", "Traces that are not closed.", ["partition"])
TRAJECTORIES = Counter("retrail_otlp_trajectories_total", "Trajectories published.")
PUBLISHED_EVENTS = Counter("retrail_otlp_events_total", "Events published.")
OUTCOME_REPORTS = Counter("retrail_otlp_outcomes_total", "Outcome reports published.")
NOT_MAPPED = Counter(
    "retrail_otlp_not_mapped_total",
    "Spans, searches and trajectories that were not understood or left out, by reason.",
    ["reason"],
)
TRACE_TICKS = Counter("retrail_otlp_ticks_total", "Ticks written while a trace was open.")

at_zero(OTLP_REQUESTS, ("accepted", "invalid"))
at_zero(SPANS, (*(dialect.name for dialect in DIALECTS), UNKNOWN, "invalid"))
at_zero(TRACE_SPANS, get_args(SpanResult))
at_zero(TRACES, get_args(ClosedBy))
at_zero(NOT_MAPPED, REASONS)
