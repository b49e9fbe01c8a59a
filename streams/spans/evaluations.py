"""What evaluations in spans say about the outcomes of trajectories."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct

from retrail_runtime.otlp import RawSpan
from streams.spans.dialects import EVALUATION, flattened, value_of

ABOUT_ANSWER = ("correct", "accura", "outcome", "success", "answer", "task", "goal")
"""Parts of the names of evaluations that judge the answer; others do not count."""

LABELS: Mapping[str, Literal["correct", "incorrect"]] = {
    **dict.fromkeys(("correct", "pass", "passed", "true", "yes", "success"), "correct"),
    **dict.fromkeys(("incorrect", "fail", "failed", "false", "no", "failure"), "incorrect"),
}

SCORE = 0.5
"""Without a known label, a score from here on is correct; scores beyond 0 to 1 do not count."""


def outcome_of(name: Any, label: Any, score: Any) -> Literal["correct", "incorrect"] | None:
    """The outcome that an evaluation gives; ``None``: it is not about the answer, or unclear.

    >>> outcome_of("Correctness", "pass", None), outcome_of("correctness", "", 0.2)
    ('correct', 'incorrect')
    >>> outcome_of("toxicity", "pass", 1.0)
    """
    if not any(part in str(name).lower() for part in ABOUT_ANSWER):
        return None
    if (known := LABELS.get(str(label).lower())) is not None:
        return known
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        return None
    return "correct" if score >= SCORE else "incorrect"


class Outcome(Struct, frozen=True, array_like=True, gc=False):
    """What an evaluation says about the trajectory of a span."""

    trace_id: str
    span_id: str
    outcome: Literal["correct", "incorrect"]
    source: str


def outcomes(raw: RawSpan) -> Iterator[Outcome]:
    """What a span's evaluations say: about the spans that it links to, else about its own trace."""
    for name, attributes in raw.events:
        if name == EVALUATION:
            yield from _outcome(raw, _values(attributes, "gen_ai.evaluation."), own=True)
    if "gen_ai.evaluation.name" in raw.attributes:
        yield from _outcome(raw, _values(raw.attributes, "gen_ai.evaluation."), own=not raw.links)
    if "evaluation.name" in raw.attributes:
        yield from _outcome(raw, _values(raw.attributes, "evaluation."), own=not raw.links)
    if not any("annotation." in name or "evaluation." in name for name in raw.attributes):
        return
    for prefix in ("annotations.", "trace.annotations.", "evaluations.", "trace.evaluations."):
        for entry in flattened(raw.attributes, prefix):
            named = entry if isinstance(entry, dict) else {}
            inner = named.get("annotation", named.get("evaluation"))
            if isinstance(inner, dict):
                values = inner.get("name"), inner.get("label"), inner.get("score")
                yield from _outcome(raw, values, own=not raw.links)


def _values(attributes: dict[str, Any], prefix: str) -> tuple[Any, Any, Any]:
    names = (("name",), ("label", "score.label"), ("score", "score.value"))
    found = [value_of(attributes, tuple(prefix + name for name in each)) for each in names]
    return found[0], found[1], found[2]


def _outcome(raw: RawSpan, values: tuple[Any, Any, Any], *, own: bool) -> Iterator[Outcome]:
    outcome = outcome_of(*values)
    if outcome is not None:
        for trace_id, span_id in [(raw.trace_id, raw.span_id)] if own else raw.links:
            yield Outcome(trace_id, span_id, outcome, str(values[0])[:128])
