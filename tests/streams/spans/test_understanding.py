"""`retrail doctor --otlp`: what was understood, and what to do about the rest."""

import json
from pathlib import Path

import pytest

from retrail_cli import main
from schemas.settings import Settings
from streams.importing.tools import ToolMap
from streams.spans.metrics import REASONS
from streams.spans.understanding import REMEDIES, understood
from tests.streams.spans.made import (
    NEED_TRACE,
    TRACE,
    agent,
    genai,
    ids,
    protobuf,
    request,
    span,
    tool,
)
from tests.streams.spans.recordings import RECORDED, lines_of
from tests.streams.spans.test_on_kafka import put


@pytest.mark.parametrize("name", RECORDED)
def test_a_recording_is_understood(name: str) -> None:
    text = "\n".join(understood((line.encode() for line in lines_of(name)), ToolMap.load()))
    assert "1 trajectories with 3 searches, 9 hits, 3 opens, 5 thoughts, 1 answers" in text
    assert "search    query='harbour lamp year' hits=['d1', 'd2', 'd3']" in text
    assert "no_id" not in text


def test_reasons_come_with_their_remedies() -> None:
    spans = [
        agent(1),
        genai(2, 1, (2, 3), "execute_tool", **{"gen_ai.tool.name": "search"}),
        tool(3, 1, (4, 5), "kb_lookup", {"needle": "q"}, ids("d1")),
        span(4, 1, attributes={"http.request.method": "GET"}),
    ]
    body = json.dumps(request(*spans, scope="my.http")).encode()
    text = "\n".join(understood([body, b"{"], ToolMap.load()))
    assert "2 requests, 1 of them unreadable" in text
    assert "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT" in text
    assert "unknown tools: kb_lookup 1" in text
    assert "1 of scope my.http" in text
    assert "no_search 1" in text


def test_every_reason_of_a_trace_has_a_remedy() -> None:
    assert {*REMEDIES, "no_content", "oversize_event"} == set(REASONS)


def test_the_command_reads_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text("\n".join(json.dumps(request(span)) for span in NEED_TRACE))
    assert main(["doctor", "--otlp", str(path)]) == 0
    assert "1 trajectories with 2 searches" in capsys.readouterr().out


def test_the_command_reads_the_topic(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RETRAIL_KAFKA_BOOTSTRAP", settings.kafka_bootstrap)
    monkeypatch.setenv("RETRAIL_TOPIC_PREFIX", settings.topic_prefix)
    assert main(["doctor", "--otlp", "topic"]) == 0
    assert "0 requests, 0 of them unreadable; 0 traces" in capsys.readouterr().out
    bodies = [json.dumps(request(span)) for span in NEED_TRACE]
    put(settings, [(None, protobuf(body)) for body in bodies[::2]])
    put(settings, [(TRACE.encode(), body.encode()) for body in bodies[1::2]])
    put(settings, [(None, b"{")])
    assert main(["doctor", "--otlp", "topic"]) == 0
    text = capsys.readouterr().out
    assert "11 requests, 1 of them unreadable; 1 traces" in text
    assert "1 trajectories with 2 searches" in text
