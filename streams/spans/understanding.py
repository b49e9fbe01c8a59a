"""What is understood of traces, with an example and the remedies; for `retrail doctor --otlp`."""

from collections import Counter
from collections.abc import Iterable, Iterator

from retrail_runtime.otlp import Request
from schemas.errors import InvalidRecordError
from streams.importing.normalise import Part
from streams.importing.report import Counts
from streams.importing.tools import ToolMap
from streams.spans.dialects import DIALECTS, OMITTED
from streams.spans.reduce import AgentSpan, reduced
from streams.spans.traces import parts_of

REMEDIES = {
    "redacted": "the instrumentation hides contents: set OPENINFERENCE_HIDE_INPUTS=false and "
    "OPENINFERENCE_HIDE_OUTPUTS=false.",
    "attributes_dropped": "the SDK dropped attributes: raise OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT.",
    "truncated": "contents are cut off: raise or unset OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT.",
    "too_large": "the result of a tool is too large to be read.",
    "no_id": "a search has no hit with an id: let the tool return JSON with ids, put the id into "
    "the metadata of documents as doc_id, or describe the result in the tool map.",
    "no_search": "no tool of a trajectory is a search: name it in the tool map "
    "(RETRAIL_OTLP_TOOLS, --tools).",
    "served": "answered by retrail serve or mcp, which publish these trajectories themselves.",
    "invalid_event": "an event breaks its contract.",
}
"""By reason, as ``retrail_otlp_not_mapped_total`` counts it."""


def understood(bodies: Iterable[bytes], tools: ToolMap) -> Iterator[str]:
    """Lines about the traces in these requests.

    Args:
        bodies: requests in protobuf or JSON, of which the spans of a trace may be spread over any.
    """
    dialects: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    requests = invalid = 0
    traces: dict[str, dict[str, AgentSpan]] = {}
    scopes: Counter[str] = Counter()
    for body in bodies:
        requests += 1
        try:
            request = Request.decode(body)
            raws = list(request.spans(OMITTED))
        except InvalidRecordError:
            invalid += 1
            continue
        for raw, (trace_id, span) in zip(raws, reduced(raws, dialects), strict=True):
            traces.setdefault(trace_id, {})[span.span_id] = span
            scopes[raw.scope] += not span.dialect
    counts = Counts()
    found = [
        part
        for trace_id, spans in traces.items()
        for part in parts_of(trace_id, spans.values(), tools, reasons, counts)
    ]
    yield f"{requests:,} requests, {invalid:,} of them unreadable; {len(traces):,} traces"
    named = {dialect.name: dialect.version for dialect in DIALECTS}
    for name, number in dialects.most_common():
        yield f"  {number:,} spans of {name} ({named.get(name, 'no known convention')})"
    for scope, number in (+scopes).most_common(5):
        yield f"    {number:,} of scope {scope or '(none)'}"
    yield (
        f"{len(found):,} trajectories with {counts.searches:,} searches, {counts.hits:,} hits, "
        f"{counts.opens:,} opens, {counts.reasonings:,} thoughts, {counts.answers:,} answers"
    )
    if found:
        yield from _example(max(found, key=lambda part: len(part.events)))
    if counts.unknown_tools:
        tools_found = ", ".join(f"{tool} {n:,}" for tool, n in counts.unknown_tools.most_common(10))
        yield f"unknown tools: {tools_found}. Name them in the tool map (RETRAIL_OTLP_TOOLS)."
    if counts.opens and counts.opens == counts.opens_unsearched:
        yield f"no opened document is a hit of a search; the first: {counts.examples.get('open')}"
    for reason, number in (+reasons).most_common():
        yield f"{reason} {number:,}: {_remedy(reason, dialects)}"


def _remedy(reason: str, dialects: Counter[str]) -> str:
    if reason != "no_content":
        return REMEDIES[reason]
    captures = [dialect.capture for dialect in DIALECTS if dialects[dialect.name]]
    return f"spans have no contents: set {', or '.join(captures)}."


def _example(part: Part) -> Iterator[str]:
    yield f"for example trajectory {part.events[0].trajectory_id}:"
    for event in part.events[:12]:
        shown = {
            name: getattr(event, name)
            for name in ("query", "doc_id", "about", "text", "name", "outcome")
            if isinstance(getattr(event, name, None), str)
        }
        hits = [hit.doc_id for hit in getattr(event, "hits", ())]
        details = [f"{name}={value!r:.80}" for name, value in shown.items()]
        details += [f"hits={hits[:5]}"] if hits else []
        yield f"  {type(event).__name__.lower():9} {' '.join(details)}"
