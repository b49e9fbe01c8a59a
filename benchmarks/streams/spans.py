"""Traces from otlp_spans through both stages of the worker otlp."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.streams.brokers import Figures, Testbed, process, testbed, worker, write
from benchmarks.streams.throughput import beside, judging
from retrail_runtime import kafka

TURNS = 4
"""Searches of a trace, each with two openings and a model before each of these three calls."""
SPAN_BYTES = 2_000
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
    judge = judging(events)["judge, 1 worker"]
    with testbed() as b:
        requests = write(b.topics.otlp_spans, traces(events), b.settings.kafka_bootstrap)
        spans = requests * (1 + 6 * TURNS)
        variables = {"RETRAIL_OTLP_ROOT_SECONDS": "1", "RETRAIL_OTLP_QUIET_SECONDS": "2"}
        log = b.folder / "otlp.log"
        with process(worker("otlp"), b.environment(**variables), log) as child:
            began = _until(b, b.topics.agent_spans, 1)
            first = _until(b, b.topics.agent_spans, requests) - began
            # A search, two openings and three thoughts a turn, the end.
            second = _until(b, b.topics.trajectory_events, requests * (6 * TURNS + 1)) - began
            status = Path(f"/proc/{child.pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    rates = {"first stage": spans / first, "both stages": spans / second, "judge": judge}
    return beside(rates, ("judge",)) | {"peak memory, MB": int(peak.split()[1]) / 1024}


def _until(b: Testbed, topic: str, count: int) -> float:
    """The time at which a topic has so many records."""
    reader = kafka.consumer(b.settings)
    try:
        while sum(end - low for low, end in kafka.offsets(reader, topic).values()) < count:
            time.sleep(0.1)
        return time.monotonic()
    finally:
        reader.close()
