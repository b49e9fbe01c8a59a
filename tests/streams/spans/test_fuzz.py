"""Mutated requests: none ends the worker, and each is counted."""

import copy
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from retrail_runtime.otlp import Request
from schemas.errors import InvalidRecordError
from schemas.settings import Settings
from streams.importing.tools import ToolMap
from streams.spans.dialects import OMITTED
from streams.spans.fold import Fold, Limits, encode
from streams.spans.reduce import reduced
from streams.spans.worker import parts_of
from tests.streams.fleet import Fleet
from tests.streams.spans.made import NEED_TRACE, protobuf, request
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
        for trace_id, span in found:
            offset += 1
            value = encode([span])
            for closed in fold.apply(offset, offset, trace_id.encode(), value):
                results["trajectories"] += len(parts_of(closed, tools, Counter()))
    assert not fold.counts["spans", "undecodable"]
    return results


@pytest.mark.parametrize("number", [1_000, pytest.param(100_000, marks=pytest.mark.faults)])
@pytest.mark.timeout(3_000)
def test_mutated_requests_are_understood_or_refused(number: int) -> None:
    results = understand(requests(number))
    assert results["accepted"] + results["invalid"] == number
    assert min(results["accepted"], results["invalid"]) > number // 10
    assert results["trajectories"] > number // 500


@pytest.mark.faults
@pytest.mark.timeout(3_000)
def test_a_worker_counts_100_000_mutated_requests(settings: Settings, fleet: Fleet) -> None:
    worker = start(fleet)
    for seed in range(100):
        put(settings, [(None, body) for body in requests(1_000, seed)])
    counted = "retrail_otlp_requests_total"
    eventually(lambda: worker.working, 60, "the first request")
    eventually(lambda: worker.sample(counted) == 100_000, 600, "all requests", interval=1.0)
    assert worker.sample(counted, result="invalid") > 1_000
    assert worker.sample("retrail_otlp_trace_spans_total", result="undecodable") == 0
    worker.leave()
