"""Mutated requests: none ends the worker, and each is counted."""

import asyncio
import copy
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from retrail_runtime.otlp import Request
from retrail_runtime.retry import Deadline
from schemas.errors import InvalidRecordError
from schemas.settings import Settings
from schemas.topics import Topics
from streams.importing.report import Counts
from streams.importing.tools import ToolMap
from streams.loop.checkpoint import Committed
from streams.loop.partition import Assignment
from streams.spans.dialects import OMITTED
from streams.spans.fold import Fold, Limits, encode
from streams.spans.reduce import reduced
from streams.spans.traces import parts_of
from streams.spans.worker import ReduceTask, TraceTask
from tests.streams.fakes import LOG, FakeRecord, Tape, never
from tests.streams.fleet import Fleet
from tests.streams.spans.made import NEED_TRACE, ids, protobuf, request, span, tool
from tests.streams.spans.recordings import RECORDED, lines_of
from tests.streams.spans.test_on_kafka import put, start
from tests.waiting import eventually

STRANGE: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    10**40,
    1e400,
    "",
    "\ud800",
    "{'a': 1}",
    '[{"id": ',
    "__REDACTED__",
    "x" * 100_000,
    [],
    {},
    [[[[[[]]]]]],
    {"values": [{"key": "a"}]},
    {"arrayValue": {"values": [{"stringValue": "d1"}, {}]}},
    {"kvlistValue": {"values": [{"key": "id", "value": {"intValue": "7"}}]}},
    {"doubleValue": "NaN"},
]


def sources() -> list[dict[str, Any]]:
    found = [request(*NEED_TRACE)]
    return found + [json.loads(line) for name in RECORDED for line in lines_of(name)[::7]]


def mutated(value: Any, rng: random.Random) -> Any:
    """The value with something in it replaced, removed, repeated or nested."""
    value = copy.deepcopy(value)
    at, holder, key = value, None, None
    while isinstance(at, list | dict) and at and (holder is None or rng.random() < 0.93):
        holder = at
        key = rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at))
        at = at[key]
    if holder is None:
        return rng.choice(STRANGE)
    match rng.randrange(4):
        case 0:
            holder[key] = rng.choice(STRANGE)
        case 1:
            del holder[key]
        case 2 if isinstance(holder, list):
            holder.append(copy.deepcopy(at))
        case _:
            holder[key] = json.dumps(at) if rng.random() < 0.5 else [at]
    return value


def requests(number: int, seed: int = 0) -> Iterator[bytes]:
    """Mutated requests, in JSON and protobuf."""
    rng, whole = random.Random(seed), sources()
    for _ in range(number):
        value = rng.choice(whole)
        for _ in range(rng.randint(1, 3)):
            value = mutated(value, rng)
        body = json.dumps(value).encode("utf-8", "surrogatepass")
        if rng.random() < 0.5:
            try:
                body = protobuf(body.decode())
            except Exception:
                body = protobuf(json.dumps(rng.choice(whole)))
            changed = bytearray(body)
            for _ in range(rng.randint(0, 4)):
                if changed:
                    changed[rng.randrange(len(changed))] = rng.randrange(256)
            body = bytes(changed[: rng.randint(0, len(changed))] if rng.random() < 0.1 else changed)
        yield body


def understand(bodies: Iterator[bytes]) -> Counter[str]:
    """What becomes of each request, and the spans of the valid ones, without a broker."""
    results: Counter[str] = Counter()
    fold, tools = Fold(Limits(root_ms=1, quiet_ms=20)), ToolMap.load()
    offset = 0
    for body in bodies:
        try:
            found = list(reduced(Request.decode(body).spans(OMITTED), Counter()))
            results["accepted"] += 1
        except InvalidRecordError:
            results["invalid"] += 1
            continue
        for trace_id, one in found:
            offset += 1
            value = encode([one])
            for closed in fold.apply(offset, offset, trace_id.encode(), value):
                results["trajectories"] += len(
                    parts_of(closed.key, closed.spans, tools, Counter(), Counts())
                )
    assert not fold.counts["spans", "undecodable"]
    return results


def openinference(kind: str) -> dict[str, Any]:
    return {"openinference.span.kind": kind}


EVALUATED = openinference("EVALUATOR") | {"evaluation.name": "correct", "evaluation.label": "pass"}
HOSTILE: dict[str, list[dict[str, Any]]] = {
    "a lone surrogate": [
        span(1, attributes=openinference("TOOL") | {"output.value": "{'a': '\\ud800'}"})
    ],
    "keys that are no text": [
        span(1, attributes=openinference("TOOL") | {"output.value": "{'a': 1, (1, 2): 3}"})
    ],
    "a number of 5,000 digits": [
        span(1, attributes=openinference("LLM") | {f"llm.output_messages.{'9' * 5_000}.a": "x"})
    ],
    "a part of 5,000 digits": [
        span(
            1,
            attributes=openinference("LLM")
            | {f"llm.output_messages.0.message.contents.{'9' * 5_000}.a": "x"},
        )
    ],
    "a name of 20,000 parts": [
        span(1, attributes=openinference("LLM") | {f"llm.output_messages.0{'.a' * 20_000}": "x"})
    ],
    "a link to nothing": [span(1, attributes=EVALUATED, links=[{"traceId": "", "spanId": ""}])],
    "a link to another trajectory": [
        span(1, attributes=EVALUATED, links=[{"traceId": "task-17", "spanId": "x"}])
    ],
    "an end before all time": [span(1, attributes=EVALUATED, endTimeUnixNano=-(10**25))],
    "3,000 tools within each other": [
        tool(number, number - 1, (1, 9), "search", {"query": "q"}, ids("d1"))
        for number in range(1, 3_001)
    ],
}


@pytest.mark.parametrize("spans", HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_request_does_not_end_the_worker(
    spans: list[dict[str, Any]], settings: Settings
) -> None:
    """A worker that ends at a record would end at it again, and so block its partition."""
    topics, tapes = Topics.of(settings), dict[str, Tape]()

    def channel(topic: str, partition: int = 0) -> Tape:
        return tapes.setdefault(topic, Tape())

    async def work() -> None:
        assigned = Assignment(0, LOG, Committed(0, "", LOG), channel, never)
        counts = {topics.agent_spans: 1, topics.outcomes: 1}
        first = ReduceTask(assigned, topics, counts, by_trace=True)
        first.process([FakeRecord(0, json.dumps(request(*spans)).encode())], 1)
        await first.finish(Deadline(5.0))
        assert not any(b"task-17" in report for report in tapes.get(topics.outcomes, Tape()).values)
        second = TraceTask(assigned, topics, Limits(root_ms=1, quiet_ms=20), ToolMap.load())
        reduced_spans = tapes.get(topics.agent_spans, Tape()).values
        second.process([FakeRecord(0, value, b"trace", 1) for value in reduced_spans], 1)
        second.process([FakeRecord(1, b"[]", None, 1_000)], 2)
        await second.finish(Deadline(5.0))

    asyncio.run(work())


@pytest.mark.parametrize("number", [1_000, pytest.param(100_000, marks=pytest.mark.faults)])
@pytest.mark.timeout(3_000)
def test_mutated_requests_are_understood_or_refused(number: int) -> None:
    results = understand(requests(number))
    assert results["accepted"] + results["invalid"] == number
    assert min(results["accepted"], results["invalid"]) > number // 10
    assert results["trajectories"] > number // 500


@pytest.mark.parametrize("number", [2_000, pytest.param(100_000, marks=pytest.mark.faults)])
@pytest.mark.timeout(3_000)
def test_a_worker_counts_mutated_requests(settings: Settings, fleet: Fleet, number: int) -> None:
    worker = start(fleet)
    for seed in range(number // 1_000):
        put(settings, [(None, body) for body in requests(1_000, seed)])
    counted = "retrail_otlp_requests_total"
    eventually(lambda: worker.working, 60, "the first request")
    eventually(lambda: worker.sample(counted) == number, 600, "all requests", interval=1.0)
    assert worker.sample(counted, result="invalid") > number // 100
    assert worker.sample("retrail_otlp_trace_spans_total", result="undecodable") == 0
    worker.leave()
