"""The metrics of the judge."""

from typing import get_args

from prometheus_client import Counter, Histogram

from retrail_runtime.metrics import at_zero
from schemas.errors import InvalidReason
from streams.events import Event

_SECONDS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)

EVENTS = Counter(
    "retrail_judge_events_total", "Trajectory events read by the judge.", ["type", "result"]
)
UNKNOWN_FIELDS = Counter("retrail_judge_unknown_fields_total", "Ignored fields of newer versions.")
DEAD_LETTERS = Counter(
    "retrail_judge_dead_letters_total", "Records sent to the dead letter queue.", ["reason"]
)
VERDICTS = Counter(
    "retrail_judge_verdicts_total", "Verdicts on browsed documents.", ["verdict", "judge"]
)
UNKNOWN = Counter(
    "retrail_judge_unknown_total",
    "Unknown verdicts, by reason: empty (no text), language (not English; judge local only), "
    "unusable (no usable answer of a judging server).",
    ["reason"],
)
JUDGE_SECONDS = Histogram(
    "retrail_judge_duration_seconds",
    "Time of a judge for one verdict that is not cached.",
    ["judge"],
    buckets=_SECONDS,
)
JUDGE_REQUESTS = Counter(
    "retrail_judge_requests_total",
    "Requests to a judging server, by result (answered, cached, shared: with a running one, "
    "unusable, retried).",
    ["result"],
)
JUDGE_TOKENS = Counter(
    "retrail_judge_tokens_total", "Tokens that the judging server counted.", ["kind"]
)
REASONING_TOKENS = Histogram(
    "retrail_judge_reasoning_tokens",
    "Length of the reasoning about a browsed document; agent models beyond 50 are one, other.",
    ["agent_model"],
    buckets=_TOKENS,
)
TICKS = Counter("retrail_judge_ticks_total", "Ticks written while there was nothing to read.")

at_zero(EVENTS, [one.__name__.lower() for one in get_args(Event)], ["accepted"])
at_zero(EVENTS, ["invalid"], ["dead_lettered"])
at_zero(DEAD_LETTERS, get_args(InvalidReason))
at_zero(JUDGE_REQUESTS, ("answered", "cached", "shared", "unusable", "retried"))
at_zero(JUDGE_TOKENS, ("prompt", "completion"))
at_zero(UNKNOWN, ("empty", "language", "unusable"))
