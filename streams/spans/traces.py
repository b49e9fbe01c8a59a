"""The trajectories in the spans of a trace.

A trajectory is the outermost agent span with everything in it; what is in no agent is one too. Its
steps are in the order in which models began and tools ended: a thought that began before a tool had
ended cannot be about its result.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from schemas.events import Outcome
from streams.events import Search
from streams.importing.normalise import Part, parts
from streams.importing.readers import Answered, Call, Step, Trajectory
from streams.importing.readers.chat import Text, Turn, assemble
from streams.importing.report import Counts
from streams.importing.tools import ToolMap
from streams.spans.reduce import AgentSpan

_TOOLS = ("tool", "search")
MAX_NESTED = 50
"""Tools within tools; those that are deeper are beside each other."""


@dataclass(slots=True)
class _Place:
    """Where a span is.

    Attributes:
        owner: id of the outermost agent span around it, or its own; empty without one.
        within: the nearest agent, model, tool or search around it.
        nested: how many tools and searches are around it, up to :data:`MAX_NESTED`.
    """

    owner: str
    within: AgentSpan | None
    nested: int = 0


def trajectories(
    key: str, spans: Iterable[AgentSpan], reasons: Counter[str] | None = None
) -> Iterator[Trajectory]:
    """The trajectories of a trace that have calls of tools.

    Args:
        key: id of the trace or conversation; the trajectory's too, if there is only one.
        spans: in any order; of repeated ones one each.
        reasons: counts what is left out.
    """
    reasons = Counter() if reasons is None else reasons
    ordered = sorted(spans, key=lambda span: (span.start, span.span_id))
    by_id = {span.span_id: span for span in ordered}
    places = _places(by_id)
    groups: dict[str, list[AgentSpan]] = defaultdict(list)
    for span in ordered:
        groups[places[span.span_id].owner].append(span)
        reasons.update(span.lacks)
    found = [(owner, _steps(owner, own, places, reasons)) for owner, own in groups.items()]
    found = [(owner, steps) for owner, steps in found if steps]
    for owner, steps in found:
        own = groups[owner]
        models = (span.model for span in own if span.model)
        yield Trajectory(
            steps,
            own_id=key if len(found) == 1 or not owner else f"{key}-{owner}",
            agent=_agent(by_id.get(owner), own),
            model=next(models, ""),
            outcome=_outcome(own, ordered, alone=len(found) == 1),
        )


def parts_of(
    key: str, spans: Iterable[AgentSpan], tools: ToolMap, reasons: Counter[str], counts: Counts
) -> list[Part]:
    """The events of a trace's trajectories that have a search.

    Args:
        reasons: counts what is left out.
        counts: of steps, see :func:`streams.importing.normalise.parts`.
    """
    found = []
    for trajectory in trajectories(key, spans, reasons):
        for part in parts(trajectory, tools, counts):
            reasons["invalid_event"] += bool(part.fault)
            if count_unmapped(part, reasons):
                found.append(part)
    return found


def count_unmapped(part: Part, reasons: Counter[str]) -> bool:
    """Count searches without the id of a hit; whether the part has a search at all."""
    searches = [event for event in part.events if isinstance(event, Search)]
    reasons["no_id"] += sum(not search.hits for search in searches)
    reasons["no_search"] += not searches
    return bool(searches)


def _places(by_id: Mapping[str, AgentSpan]) -> dict[str, _Place]:
    """The place of each span; parents that are missing, or in a circle, end the way up."""
    places: dict[str, _Place] = {}
    for span_id in by_id:
        path: list[AgentSpan] = []
        on_path: set[str] = set()
        at: AgentSpan | None = by_id[span_id]
        while at is not None and at.span_id not in places and at.span_id not in on_path:
            path.append(at)
            on_path.add(at.span_id)
            at = by_id.get(at.parent_id)
        above = at if at is not None and at.span_id in places else None
        for span in reversed(path):
            place = places[above.span_id] if above is not None else _Place("", None)
            owner = place.owner or (span.span_id if span.kind == "agent" else "")
            is_tool = above is not None and above.kind in _TOOLS
            stands = above is not None and above.kind in ("agent", "llm", *_TOOLS)
            if is_tool and place.nested == MAX_NESTED:
                stands = is_tool = False
            within = above if stands else place.within
            places[span.span_id] = _Place(owner, within, place.nested + is_tool)
            above = span
    return places


def _steps(
    owner: str, spans: Sequence[AgentSpan], places: Mapping[str, _Place], reasons: Counter[str]
) -> list[Step]:
    """The steps of a trajectory; none if no tool was called, but those of `retrail serve`."""
    inner: dict[str, list[AgentSpan]] = defaultdict(list)
    turns: list[tuple[int, bool, str, list[Turn]]] = []
    tools: list[AgentSpan] = []
    for span in spans:
        within = places[span.span_id].within
        if span.kind in _TOOLS:
            is_inner = within is not None and within.kind in _TOOLS
            (inner[within.span_id] if is_inner and within else tools).append(span)
        elif span.kind == "llm" and (within is None or within.kind == "agent"):
            turns.append((span.start, True, span.span_id, _turns(span)))
    own = [span for span in tools if not _is_served(span, inner)]
    reasons["served"] += len(tools) - len(own)
    if not own:
        return []
    turns += [(span.end, False, span.span_id, [_call(span, inner)]) for span in own]
    turns.sort(key=lambda turn: turn[:3])
    steps = assemble(turn for *_, each in turns for turn in each)
    if not any(isinstance(step, Answered) for step in steps):
        agents = (span.text for span in spans if span.span_id == owner)
        steps += [Answered(text) for text in agents if text.strip()]
    return steps


def _turns(span: AgentSpan) -> list[Turn]:
    """What a model wrote; empty texts separate the calls before and after it."""
    return [Text(span.thought, thought=True), Text(span.text, thought=span.calls)]


def _call(span: AgentSpan, inner: Mapping[str, list[AgentSpan]]) -> Call:
    return Call(
        tool=span.name,
        arguments=span.arguments,
        result=span.result,
        failed=span.failed,
        inner=tuple(_call(one, inner) for one in inner.get(span.span_id, ())),
    )


def _is_served(span: AgentSpan, inner: Mapping[str, list[AgentSpan]]) -> bool:
    return span.served or any(_is_served(one, inner) for one in inner.get(span.span_id, ()))


def _agent(outermost: AgentSpan | None, spans: Iterable[AgentSpan]) -> str:
    """The name of the outermost agent; without one, the first name of an agent in it."""
    if outermost is not None and outermost.name:
        return outermost.name
    named = (span.name for span in spans if span.kind in ("agent", "other") and span.name)
    return next(named, "")


def _outcome(own: Iterable[AgentSpan], spans: Iterable[AgentSpan], *, alone: bool) -> Outcome:
    """What the last evaluation of one of a trajectory's own spans says."""
    ids = {span.span_id for span in own}
    found = [
        (span.end, one.outcome)
        for span in spans
        for one in span.outcomes
        if alone or one.span_id in ids
    ]
    return max(found, default=(0, "unknown"))[1]
