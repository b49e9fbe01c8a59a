"""Traces through otlp_spans, agent-spans and trajectory-events, on a real broker."""

import json
import random
from collections import defaultdict

from schemas.pairs import LabelledPair
from schemas.settings import Settings
from schemas.topics import Topics
from tests.streams.fleet import Fleet, Worker
from tests.streams.spans.made import agent, ids, protobuf, request, span, tool
from tests.streams.spans.recordings import RECORDED, essence, lines_of, own_client
from tests.streams.topics import pairs_of, read, send
from tests.waiting import eventually

Spans = list[tuple[bytes | None, bytes]]


def spans_of_all(rng: random.Random) -> Spans:
    """Every recording shuffled and repeated, as the Collector may write it."""
    found: Spans = []
    for number, name in enumerate(RECORDED):
        lines = lines_of(name)
        trace = json.loads(lines[-1])["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"]
        for line in lines + rng.sample(lines, len(lines) // 3):
            value = protobuf(line) if number % 2 else line.encode()
            found.append((trace.encode() if number % 3 else None, value))
    return rng.sample(found, len(found))


def put(settings: Settings, spans: Spans) -> None:
    send(settings, [(key, value, []) for key, value in spans], Topics.of(settings).otlp_spans)


def start(fleet: Fleet, root: float = 1.0, quiet: float = 3.0, **variables: str) -> Worker:
    times = {"RETRAIL_OTLP_ROOT_SECONDS": str(root), "RETRAIL_OTLP_QUIET_SECONDS": str(quiet)}
    return fleet.start("otlp", **times, **variables)


def by_trajectory(pairs: list[LabelledPair]) -> dict[str, list[LabelledPair]]:
    found: dict[str, dict[str, LabelledPair]] = defaultdict(dict)
    for pair in pairs:
        found[pair.trajectory_id].setdefault(pair.pair_id, pair)
    return {name: [*each.values()] for name, each in found.items()}


def test_recordings_give_the_pairs_of_the_own_client_although_the_worker_is_killed(
    settings: Settings, fleet: Fleet
) -> None:
    spans, own = spans_of_all(random.Random(0)), own_client()
    worker = start(fleet, root=20.0, quiet=20.0)
    fleet.start("judge")
    fleet.start("mine")
    put(settings, spans[: len(spans) // 2])
    eventually(lambda: worker.working, 40, "the first spans")
    worker.kill()
    put(settings, spans[len(spans) // 2 :])
    start(fleet, root=20.0, quiet=20.0)

    def complete() -> bool:
        found = by_trajectory(pairs_of(settings))
        return sum(len(each) == len(own) for each in found.values()) == len(RECORDED)

    eventually(complete, 120, "the pairs of all recordings", interval=1.0)
    found = by_trajectory(pairs_of(settings))
    assert len(found) == len(RECORDED)
    assert all(essence(pairs) == essence(own) for pairs in found.values())


def test_what_is_late_invalid_or_unknown_is_counted(settings: Settings, fleet: Fleet) -> None:
    worker = start(fleet)
    searched = tool(2, 1, (2, 3), "search", {"query": "q"}, ids("d1"))
    foreign = span(3, 1, attributes={"http.request.method": "GET"})
    put(settings, [(None, json.dumps(request(agent(1), searched, foreign)).encode())])
    eventually(lambda: worker.working, 40, "the trace")
    eventually(
        lambda: worker.sample("retrail_otlp_traces_total", reason="root") == 1, 30, "its close"
    )
    late = json.dumps(request(tool(4, 1, (4, 5), "search", {"query": "late"}, ids("d2"))))
    put(settings, [(None, late.encode()), (None, b"\x00no request"), (None, b"{]"), (None, b"")])
    nameless = json.dumps(request(span(5) | {"traceId": "0" * 32}))
    put(settings, [(None, nameless.encode())])
    eventually(
        lambda: worker.sample("retrail_otlp_trace_spans_total", result="late") == 1, 30, "late"
    )
    eventually(
        lambda: worker.sample("retrail_otlp_spans_total", dialect="invalid") == 1, 30, "invalid"
    )
    assert worker.sample("retrail_otlp_requests_total", result="invalid") == 2
    assert worker.sample("retrail_otlp_spans_total", dialect="unknown") == 1
    assert worker.sample("retrail_otlp_trajectories_total") == 1
    worker.leave()
    events = [json.loads(m.value()) for m in read(settings, Topics.of(settings).trajectory_events)]
    assert [event["type"] for event in events] == ["search", "end"]


def test_an_evaluation_days_later_is_an_outcome(settings: Settings, fleet: Fleet) -> None:
    worker = start(fleet)
    searched = tool(2, 1, (2, 3), "search", {"query": "q"}, ids("d1"))
    put(settings, [(None, json.dumps(request(agent(1), searched)).encode())])
    eventually(lambda: worker.working, 40, "the trace")
    eventually(lambda: worker.sample("retrail_otlp_traces_total") == 1, 30, "its close")
    evaluated = {
        "openinference.span.kind": "EVALUATOR",
        "evaluation.name": "correctness",
        "evaluation.label": "pass",
    }
    trace = agent(1)["traceId"]
    evaluator = span(9, attributes=evaluated, links=[{"traceId": trace, "spanId": f"{1:016x}"}])
    put(settings, [(None, json.dumps(request(evaluator | {"traceId": "f" * 32})).encode())])
    topic = Topics.of(settings).outcomes
    eventually(lambda: len(read(settings, topic)) == 2, 30, "the report")
    reports = {m.key().decode(): json.loads(m.value())["outcome"] for m in read(settings, topic)}
    assert reports == {trace: "correct", f"{trace}-{1:016x}": "correct"}


def test_the_traces_of_a_conversation_are_one_trajectory(settings: Settings, fleet: Fleet) -> None:
    worker = start(fleet, RETRAIL_OTLP_TRAJECTORY="conversation")
    named = {"gen_ai.conversation.id": "c7"}
    for number, trace in enumerate(("a" * 32, "b" * 32)):
        found = tool(10 + number, 0, (number, number + 1), "search", {"query": trace}, ids("d1"))
        found["attributes"] += span(1, attributes=named)["attributes"]
        put(settings, [(None, json.dumps(request(found | {"traceId": trace})).encode())])
    eventually(lambda: worker.working, 40, "the traces")
    eventually(lambda: worker.sample("retrail_otlp_trajectories_total") == 1, 30, "the close")
    messages = read(settings, Topics.of(settings).trajectory_events)
    assert {m.key() for m in messages} == {b"c7"}
    assert [json.loads(m.value())["type"] for m in messages] == ["search", "search", "end"]
