"""Traces from otlp_spans through both stages of the worker otlp."""

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.streams.brokers import Figures, Testbed, process, testbed, worker, write
from benchmarks.streams.throughput import beside, judging
from deploy.processes import free_ports
from retrail_runtime import kafka

TURNS = 4
"""Searches of a trace, each with two openings and a model before each of these three calls."""
SPAN_BYTES = 2_000
MOST_JUDGED = 300_000
HISTORY = "gen_ai.input.messages"

Call = tuple[str, dict[str, str], str]


def traces(spans: int) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of requests: a trace each, of spans of 2 KB in protobuf."""
    number = made = 0
    while made < spans:
        request = _trace(number)
        made += len(request.resource_spans[0].scope_spans[0].spans)
        yield f"{number:032x}".encode(), request.SerializeToString()
        number += 1


def _trace(number: int) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    trace_id, clock = (number + 1).to_bytes(16, "big"), 0

    def add(operation: str, **attributes: str) -> None:
        nonlocal clock
        span = spans.add(trace_id=trace_id, name=operation)
        span.span_id = len(spans).to_bytes(8, "big")
        span.parent_span_id = b"" if operation == "invoke_agent" else (1).to_bytes(8, "big")
        span.start_time_unix_nano, span.end_time_unix_nano = clock, clock + 1
        clock += 2
        named = {"gen_ai.operation.name": operation, **attributes}
        for name, value in named.items():
            span.attributes.add(key=name).value.string_value = value
        filler = "x" * max(0, SPAN_BYTES - span.ByteSize() - 30)
        span.attributes.add(key=HISTORY).value.string_value = filler

    add("invoke_agent", **{"gen_ai.agent.name": "bench"})
    for turn in range(TURNS):
        hits = [{"id": f"d{number}-{turn}-{rank}", "text": "x" * 80} for rank in range(10)]
        calls: list[Call] = [("search", {"query": f"need {number} {turn}"}, json.dumps(hits))]
        calls += [("open_document", {"doc_id": hit["id"]}, "x" * 800) for hit in hits[:2]]
        for tool, arguments, result in calls:
            parts = [{"type": "text", "content": f"This page is relevant: it has {turn}."}]
            message = {"role": "assistant", "parts": [*parts, {"type": "tool_call", "name": tool}]}
            add("chat", **{"gen_ai.output.messages": json.dumps([message])})
            named = {"gen_ai.tool.name": tool, "gen_ai.tool.call.result": result}
            add("execute_tool", **{**named, "gen_ai.tool.call.arguments": json.dumps(arguments)})
    return request


def otlp(events: int) -> Figures:
    """Spans of 2 KB through both stages of one worker otlp, beside one judge."""
    judge = judging(min(events, MOST_JUDGED))
    with testbed() as b:
        requests = write(b.topics.otlp_spans, traces(events), b.settings.kafka_bootstrap)
        spans = requests * (1 + 6 * TURNS)
        # A search, two openings and three thoughts a turn, the end.
        first, second, memory = _run(b, requests, requests * (6 * TURNS + 1))
    rates = {"first stage": spans / first, "both stages": spans / second}
    quarter = len(memory) // 4
    return beside(rates | {"judge": judge["judge, 1 worker"]}, ("judge",)) | {
        "spans": spans,
        "most memory in the first quarter, MB": max(memory[: quarter + 1]),
        "most memory in the last quarter, MB": max(memory[-quarter - 1 :]),
    }


def _run(b: Testbed, requests: int, events: int) -> tuple[float, float, list[float]]:
    """Seconds of a worker until either stage has written all, and its memory in MB meanwhile.

    Raises:
        RuntimeError: the worker ended.
    """
    log, (port,) = b.folder / "otlp.log", free_ports(1)
    variables = {"OTLP_ROOT_SECONDS": 1, "OTLP_QUIET_SECONDS": 2, "METRICS_PORT": port}
    env = b.environment(**{f"RETRAIL_{name}": str(value) for name, value in variables.items()})
    first, memory = 0.0, list[float]()
    with process(worker("otlp"), env, log) as child, closing(kafka.consumer(b.settings)) as reader:

        def written(topic: str) -> int:
            if child.poll() is not None:
                raise RuntimeError(f"the worker ended:\n{log.read_text()[-3_000:]}")
            return sum(end - low for low, end in kafka.offsets(reader, topic).values())

        while not written(b.topics.agent_spans):
            time.sleep(0.05)
        began = time.monotonic()
        while written(b.topics.trajectory_events) < events:
            reduced = written(b.topics.agent_spans) - _metric(port, "retrail_otlp_ticks_total")
            if not first and reduced >= requests:
                first = time.monotonic() - began
            memory.append(_metric(port, "process_resident_memory_bytes") / 1024**2)
            time.sleep(0.2)
        return first, time.monotonic() - began, memory


def _metric(port: int, name: str) -> float:
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
    return next(float(line.split()[1]) for line in page.splitlines() if line.startswith(name))
