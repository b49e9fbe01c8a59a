"""What the spans of a trace mean."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrail_runtime.otlp import Request
from streams.events import Answer, End, Event, Reasoning
from streams.importing.normalise import parts
from streams.importing.readers import Trajectory
from streams.importing.report import Counts
from streams.importing.tools import ToolMap
from streams.spans.dialects import OMITTED
from streams.spans.reduce import AgentSpan, reduced
from streams.spans.traces import count_unmapped, trajectories
from tests.streams.importing.logs import HELPED, shape
from tests.streams.spans.made import (
    NEED_TRACE,
    TRACE,
    agent,
    genai,
    ids,
    model,
    request,
    retrieval,
    span,
    tool,
)


def reduced_of(*spans: Any) -> list[AgentSpan]:
    found = reduced(Request.of(request(*spans)).spans(OMITTED), Counter())
    return [span for _, span in found]


def events_of(*spans: Any, reasons: Counter[str] | None = None) -> list[list[Event]]:
    """The events of each trajectory."""
    found = trajectories(TRACE, reduced_of(*spans), reasons)
    return [part.events for one in found for part in parts(one, ToolMap.load(), Counts())]


def shapes(*spans: Any) -> list[Any]:
    """The events of the only trajectory."""
    [events] = events_of(*spans)
    return shape(events)


def searches(*spans: Any) -> list[tuple[str, list[str]]]:
    """Query and ids of the searches of the only trajectory."""
    [events] = events_of(*spans)
    return [
        (event.query, [hit.doc_id for hit in event.hits])
        for event in events
        if type(event).__name__ == "Search"
    ]


# -- Conventions -----------------------------------------------------------------------------------

THOUGHT = "This page is relevant: it was lit in 1871."
FLATTENED = {
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": THOUGHT,
    "gen_ai.completion.0.tool_calls.0.name": "search",
}
BEFORE = {"gen_ai.operation.name": "chat", "gen_ai.system": "openai"}
WRITTEN: dict[str, dict[str, Any]] = {
    "an attribute": {
        "gen_ai.operation.name": "chat",
        "gen_ai.output.messages": [
            {
                "role": "assistant",
                "parts": [
                    {"type": "text", "content": THOUGHT},
                    {"type": "tool_call", "name": "search", "arguments": {}},
                ],
            }
        ],
    },
    "gen_ai.choice": BEFORE,
    "gen_ai.choice of Azure": BEFORE,
    "gen_ai.content.completion": BEFORE,
    "flattened, before": BEFORE | FLATTENED,
    "OpenLLMetry": {"traceloop.entity.name": "m", "llm.request.type": "chat"} | FLATTENED,
    "OpenInference": {
        "openinference.span.kind": "LLM",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": THOUGHT,
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "search",
    },
}


def test_a_completion_may_be_text_alone() -> None:
    event = ("gen_ai.content.completion", {"gen_ai.completion": "1871"})
    [found] = reduced_of(span(2, attributes=BEFORE, events=[event]))
    assert (found.text, found.calls, found.lacks) == ("1871", False, ())


@pytest.mark.parametrize("kind", [1, 3], ids=["internal", "client"])
@pytest.mark.parametrize("name", WRITTEN)
def test_every_convention_names_what_the_model_wrote(name: str, kind: int) -> None:
    message = {"content": THOUGHT, "tool_calls": [{"function": {"name": "search"}}]}
    contents: dict[str, dict[str, Any]] = {
        "gen_ai.choice": {"index": 0, "message": message},
        "gen_ai.choice of Azure": {"gen_ai.event.content": json.dumps({"message": message})},
        "gen_ai.content.completion": {"gen_ai.completion": json.dumps([message])},
    }
    events = [(name.partition(" ")[0], contents[name])] if name in contents else []
    thinking = span(4, 1, (6, 7), attributes=WRITTEN[name], events=events, kind=kind)
    searched = tool(2, 1, (2, 3), "search", {"query": "q"}, ids("d1"))
    opened = tool(3, 1, (4, 5), "open_document", {"doc_id": "d1"}, "text")
    [found] = events_of(agent(1), searched, opened, thinking)
    assert [(e.text, e.about) for e in found if isinstance(e, Reasoning)] == [(THOUGHT, "d1")]


# -- Trajectories ----------------------------------------------------------------------------------


def test_a_thought_after_an_opening_is_about_it() -> None:
    [events] = events_of(*NEED_TRACE)
    about = [(event.about, event.text) for event in events if isinstance(event, Reasoning)]
    assert about[-1] == ("d2", HELPED)
    assert [event.text for event in events if isinstance(event, Answer)] == ["1871"]
    assert isinstance(events[-1], End)
    assert events[0].agent.name == "a"
    assert events[0].agent.model == "m"


def test_ids_follow_from_trace_and_place() -> None:
    [events] = events_of(*NEED_TRACE)
    assert {event.trajectory_id for event in events} == {TRACE}
    assert [event.event_id for event in events] == [f"{TRACE}-{n}" for n in range(len(events))]


def test_a_thought_that_began_before_the_opening_ended_is_not_about_it() -> None:
    spans = [
        tool(2, 1, (2, 3), "search", {"query": "q"}, ids("d1")),
        tool(3, 1, (4, 9), "open_document", {"doc_id": "d1"}, "text"),
        model(4, 1, (5, 10), "Another branch thinks.", "search"),
        model(5, 1, (11, 12), "This one read it.", "search"),
    ]
    [events] = events_of(agent(1), *spans)
    thoughts = [(event.text, event.about) for event in events if isinstance(event, Reasoning)]
    assert thoughts == [("Another branch thinks.", None), ("This one read it.", "d1")]


def test_two_agents_of_a_trace_are_two_trajectories() -> None:
    one = [agent(2, 1, (2, 10)), tool(3, 2, (3, 4), "search", {"query": "one"}, ids("d1"))]
    two = [agent(4, 1, (12, 20)), tool(5, 4, (13, 14), "search", {"query": "two"}, ids("d2"))]
    found = events_of(span(1, at=(1, 30)), *one, *two)
    assert [events[0].trajectory_id for events in found] == [
        f"{TRACE}-{2:016x}",
        f"{TRACE}-{4:016x}",
    ]


def test_an_agent_within_an_agent_belongs_to_the_outermost() -> None:
    inner = tool(4, 3, (5, 6), "search", {"query": "inner"}, ids("d1"))
    spans = [agent(1), tool(2, 1, (2, 9), "ask_expert", {}, "…"), agent(3, 2, (3, 8)), inner]
    assert searches(*spans) == [("inner", ["d1"])]


def test_a_model_within_a_tool_is_not_the_agent() -> None:
    spans = [
        tool(2, 1, (2, 3), "search", {"query": "q"}, ids("d1")),
        tool(3, 1, (4, 9), "open_document", {"doc_id": "d1"}, "text"),
        model(4, 3, (5, 6), "A summary for the tool."),
        model(5, 1, (10, 11), "The agent thinks.", "search"),
    ]
    [events] = events_of(agent(1), *spans)
    assert [e.text for e in events if isinstance(e, Reasoning)] == ["The agent thinks."]


def test_a_model_within_a_model_is_the_same_call() -> None:
    spans = [
        tool(2, 1, (2, 3), "search", {"query": "q"}, ids("d1")),
        model(3, 1, (4, 7), "Done."),
        model(4, 3, (5, 6), "Done."),
    ]
    [events] = events_of(agent(1), *spans)
    assert [e.text for e in events if isinstance(e, Answer)] == ["Done."]


def test_without_a_model_the_agent_s_output_is_the_answer() -> None:
    output = '[{"role": "assistant", "parts": [{"type": "text", "content": "1871"}]}]'
    found = agent(1, **{"gen_ai.output.messages": output})
    [events] = events_of(found, tool(2, 1, (2, 3), "search", {"query": "q"}, ids("d1")))
    assert [e.text for e in events if isinstance(e, Answer)] == ["1871"]


def test_a_trace_without_tools_is_no_trajectory() -> None:
    assert events_of(agent(1), model(2, 1, (2, 3), "Hello.")) == []


def test_a_trajectory_without_a_search_is_counted() -> None:
    reasons: Counter[str] = Counter()
    spans = reduced_of(agent(1), tool(2, 1, (2, 3), "calculator", {}, "4"))
    [found] = trajectories(TRACE, spans)
    [part] = parts(found, ToolMap.load(), Counts())
    assert not count_unmapped(part, reasons)
    assert reasons["no_search"] == 1


# -- One search in several spans -------------------------------------------------------------------


def test_a_retriever_alone_is_a_search() -> None:
    assert searches(agent(1), retrieval(2, 1, (2, 3), "q", ["d1", "d2"])) == [("q", ["d1", "d2"])]


def test_ids_come_from_the_tool_where_the_retriever_has_none() -> None:
    outer = tool(2, 1, (2, 9), "search", {"query": "q"}, ids("d1", "d2"))
    assert searches(agent(1), outer, retrieval(3, 2, (3, 4), "q", [None, None])) == [
        ("q", ["d1", "d2"])
    ]


def test_ids_and_query_come_from_the_retriever_where_the_tool_has_none() -> None:
    outer = tool(2, 1, (2, 9), "search", None, "I found two pages.")
    inner = retrieval(3, 2, (3, 4), "harbour lamp", ["d1", "d2"])
    assert searches(agent(1), outer, inner) == [("harbour lamp", ["d1", "d2"])]


def test_a_tool_of_unknown_name_around_a_retriever_is_that_search() -> None:
    outer = tool(2, 1, (2, 9), "kb_lookup", {"query": "q"}, ids("d1"))
    assert searches(agent(1), outer, retrieval(3, 2, (3, 4), "q", [None])) == [("q", ["d1"])]


def test_client_and_server_of_an_mcp_call_are_one_search() -> None:
    client = tool(2, 1, (2, 9), "search", {"query": "q"}, ids("d1"))
    server = genai(4, 3, (4, 7), "execute_tool", **{"gen_ai.tool.name": "search"})
    http = span(3, 2, (3, 8), attributes={"http.request.method": "POST"})
    assert searches(agent(1), client, http, server) == [("q", ["d1"])]


def test_client_and_server_of_an_mcp_opening_are_one_browse() -> None:
    client = genai(3, 1, (3, 9), "execute_tool", **{"gen_ai.tool.name": "open_document"})
    server = tool(4, 3, (4, 7), "open_document", {"doc_id": "d1"}, "text")
    found = shapes(
        agent(1), tool(2, 1, (2, 2), "search", {"query": "q"}, ids("d1")), client, server
    )
    assert [one for one in found if "browse" in str(one)] != []
    assert sum("browse" in str(one) for one in found) == 1


def test_several_searches_within_a_tool_stay_several() -> None:
    outer = tool(2, 1, (2, 9), "research", {}, "a report")
    inner = [
        tool(3, 2, (3, 4), "search", {"query": "one"}, ids("d1")),
        tool(4, 2, (5, 6), "search", {"query": "two"}, ids("d2")),
    ]
    assert searches(agent(1), outer, *inner) == [("one", ["d1"]), ("two", ["d2"])]


# -- What is left out ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "result",
    [
        {"trajectory_id": "abcdefghijk.ABCDEFGHI:_", "hits": ids("d1")},
        {"results": [{"id": "d1~abcdefghijk.ABCDEFGHI:_"}]},
    ],
    ids=["the handle beside the hits", "the handle in their ids"],
)
def test_what_retrail_serve_answered_is_dropped_and_counted(result: Any) -> None:
    reasons: Counter[str] = Counter()
    served = tool(2, 1, (2, 3), "search", {"query": "q"}, result)
    assert events_of(agent(1), served, reasons=reasons) == []
    assert reasons["served"] == 1


def test_a_search_without_an_id_is_counted() -> None:
    reasons: Counter[str] = Counter()
    spans = reduced_of(agent(1), retrieval(2, 1, (2, 3), "q", [None]))
    [found] = trajectories(TRACE, spans)
    [part] = parts(found, ToolMap.load(), Counts())
    assert count_unmapped(part, reasons)
    assert reasons["no_id"] == 1


@pytest.mark.parametrize(
    ("spans", "reason"),
    [
        ([genai(2, 1, (2, 3), "execute_tool", **{"gen_ai.tool.name": "search"})], "no_content"),
        (
            [
                span(
                    2,
                    1,
                    attributes={"openinference.span.kind": "TOOL", "input.value": "__REDACTED__"},
                )
            ],
            "redacted",
        ),
        (
            [
                span(
                    2,
                    1,
                    attributes={"gen_ai.operation.name": "execute_tool"},
                    droppedAttributesCount=3,
                )
            ],
            "attributes_dropped",
        ),
        ([tool(2, 1, (2, 3), "search", {"query": "q"}, '[{"id": "d1", "te')], "truncated"),
    ],
)
def test_a_missing_content_is_counted_by_its_reason(spans: list[Any], reason: str) -> None:
    reasons: Counter[str] = Counter()
    events_of(agent(1), *spans, reasons=reasons)
    assert reasons[reason] >= 1


# -- Outcomes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "evaluated",
    [
        {
            "events": [
                (
                    "gen_ai.evaluation.result",
                    {
                        "gen_ai.evaluation.name": "correctness",
                        "gen_ai.evaluation.score.label": "fail",
                    },
                )
            ]
        },
        {
            "attributes": {
                "openinference.span.kind": "EVALUATOR",
                "evaluation.name": "answer correctness",
                "evaluation.score": 0.0,
            },
            "links": [{"traceId": TRACE, "spanId": f"{1:016x}"}],
        },
        {
            "attributes": {
                "annotations.0.annotation.name": "correct",
                "annotations.0.annotation.label": "false",
            }
        },
    ],
    ids=["an event of GenAI", "an evaluator with a link", "an annotation"],
)
def test_an_evaluation_is_the_outcome(evaluated: dict[str, Any]) -> None:
    searched = tool(2, 1, (2, 3), "search", {"query": "q"}, ids("d1"))
    [found] = trajectories(TRACE, reduced_of(agent(1), searched, span(3, 1, **evaluated)))
    assert found.outcome == "incorrect"


# -- Any tree --------------------------------------------------------------------------------------

PARENTS = st.lists(st.integers(0, 12), min_size=1, max_size=12)
MAKERS = (
    lambda number, parent: agent(number, parent, (number, number + 5)),
    lambda number, parent: model(number, parent, (number, number + 1), f"thought {number}", "t"),
    lambda number, parent: tool(
        number, parent, (number, number + 1), "search", {"query": f"q{number}"}, ids(f"d{number}")
    ),
    lambda number, parent: span(number, parent, attributes={}),
)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), max_size=12), st.randoms())
def test_any_tree_in_any_order_gives_the_same_trajectories(
    tree: list[tuple[int, int]], rng: Any
) -> None:
    """Also parents that are missing, their own, or in a circle."""
    spans = [MAKERS[kind](number, parent) for number, (parent, kind) in enumerate(tree, 1)]

    def found(order: list[Any]) -> list[Trajectory]:
        return sorted(trajectories(TRACE, reduced_of(*order)), key=lambda one: one.own_id)

    straight = found(spans)
    assert found(rng.sample(spans, len(spans))) == straight
    calls = str(straight).count("tool='search'")
    assert calls == sum(kind == 2 for _, kind in tree)
