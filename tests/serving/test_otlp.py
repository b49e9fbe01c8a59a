"""POST /v1/traces: what is written to the topic, and what exporters are answered."""

import gzip
import json
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from pydantic import SecretStr
from starlette.testclient import TestClient

from retrail_runtime import kafka as clients
from retrail_runtime.otlp import Request as TraceRequest
from schemas.errors import DeliveryError
from schemas.topics import Topics
from serving import metrics, otlp
from serving.guards import guarded
from serving.http_api import create_app
from serving.otlp import AT_ONCE, MAX_TRACES, Traces
from tests.serving.fakes import World
from tests.serving.live import listening
from tests.streams.fleet import Fleet, installation
from tests.streams.spans.made import NEED_TRACE, protobuf, request, span
from tests.streams.spans.recordings import RECORDED, essence, lines_of, own_client
from tests.streams.spans.test_fuzz import requests
from tests.streams.spans.test_on_kafka import start
from tests.streams.topics import pairs_of, read
from tests.waiting import eventually

JSON, PROTOBUF = "application/json", "application/x-protobuf"
BODY = json.dumps(request(*NEED_TRACE)).encode()

Written = list[tuple[bytes, dict[str, bytes]]]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    """What was written, by a Kafka that takes everything."""
    found: Written = []

    def publish(_producer: Any, topic: str, *, value: bytes, headers: Any) -> int:
        assert topic == "otlp_spans"
        found.append((value, dict(headers)))
        return len(found) - 1

    monkeypatch.setattr(clients, "publish_and_wait", publish)
    return found


@pytest.fixture
def http() -> Iterator[TestClient]:
    yield from client()


def client(**changes: object) -> Iterator[TestClient]:
    world = World(**changes)
    app = guarded(
        create_app(world._running, Traces(world.settings)), world.settings, host="0.0.0.0"
    )
    with TestClient(app, raise_server_exceptions=False) as http:
        yield http


def post(http: TestClient, body: bytes, media_type: str = JSON, **headers: str) -> Any:
    return http.post("/v1/traces", content=body, headers={"content-type": media_type} | headers)


def test_json_is_written_unchanged(http: TestClient, written: Written) -> None:
    answer = post(http, BODY, "application/json; charset=utf-8")
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["content-type"] == JSON
    assert written == [(BODY, {"content-type": JSON.encode()})]


def test_protobuf_is_written_unchanged(http: TestClient, written: Written) -> None:
    body = protobuf(BODY.decode())
    answer = post(http, body, PROTOBUF)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == PROTOBUF
    assert ExportTraceServiceResponse.FromString(answer.content) == ExportTraceServiceResponse()
    assert [value for value, _ in written] == [body]


def test_gzip_is_written_decompressed(http: TestClient, written: Written) -> None:
    answer = post(http, gzip.compress(BODY), **{"content-encoding": "gzip"})
    assert answer.status_code == 200
    assert [value for value, _ in written] == [BODY]


def test_spans_without_ids_are_a_partial_success(http: TestClient, written: Written) -> None:
    body = json.dumps(request(NEED_TRACE[0], span(3) | {"traceId": "xyz"}))
    answer = post(http, body.encode())
    assert answer.status_code == 200
    assert answer.json()["partialSuccess"]["rejectedSpans"] == "1"
    answer = post(http, protobuf(body.replace("xyz", "00")), PROTOBUF)
    partly = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert partly.rejected_spans == 1
    assert "trace id" in partly.error_message
    assert len(written) == 2


def test_a_request_without_spans_writes_nothing(http: TestClient, written: Written) -> None:
    assert post(http, b"{}").status_code == 200
    assert post(http, b"", PROTOBUF).status_code == 200
    assert written == []


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b'{"resourceSpans": 7}', {}, 400),
        (BODY, {"content-type": PROTOBUF}, 400),
        (b"\xff\xff", {"content-type": PROTOBUF}, 400),
        (BODY, {"content-encoding": "gzip"}, 400),
        (gzip.compress(BODY)[:-9], {"content-encoding": "gzip"}, 400),
        (gzip.compress(BODY) * 2, {"content-encoding": "gzip"}, 400),
        (BODY, {"content-encoding": "br"}, 415),
        (BODY, {"content-type": "text/plain"}, 415),
        (b"{" + b" " * MAX_TRACES, {}, 413),
        (gzip.compress(b"{" + b" " * MAX_TRACES), {"content-encoding": "gzip"}, 413),
    ],
)
def test_what_cannot_be_taken_is_refused(
    http: TestClient, written: Written, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = http.post("/v1/traces", content=body, headers={"content-type": JSON} | headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert written == []


def test_it_needs_the_token(written: Written) -> None:
    for http in client(serve_token=SecretStr("0123456789abcdef")):
        assert post(http, BODY).status_code == 401
        assert post(http, BODY, authorization="Bearer 0123456789abcdef").status_code == 200
    assert len(written) == 1


def test_without_kafka_exporters_are_to_repeat(
    http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: Any, **_named: Any) -> int:
        raise DeliveryError("no broker")

    monkeypatch.setattr(clients, "publish_and_wait", refuse)
    answer = post(http, BODY)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


def test_while_kafka_hangs_more_requests_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    goes_on, started = threading.Event(), threading.Semaphore(0)

    def hang(*_args: Any, **_named: Any) -> int:
        started.release()
        assert goes_on.wait(30)
        return 0

    monkeypatch.setattr(clients, "publish_and_wait", hang)
    for http in client():
        with ThreadPoolExecutor(AT_ONCE) as pool:
            waiting = [pool.submit(post, http, BODY) for _ in range(AT_ONCE)]
            for _ in range(AT_ONCE):
                assert started.acquire(timeout=30)
            refused = post(http, BODY)
            goes_on.set()
            assert {one.result().status_code for one in waiting} == {200}
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"


def test_kafka_that_hangs_longer_than_the_deadline_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(clients, "publish_and_wait", lambda *_, **__: goes_on.wait(30) and 0)
    for http in client(serve_deadline_seconds=0.2):
        assert post(http, BODY).status_code == 503
        goes_on.set()


def test_a_server_that_stops_does_not_wait_for_kafka() -> None:
    for http in client(serve_deadline_seconds=0.2, kafka_bootstrap="127.0.0.1:1"):
        assert post(http, BODY).status_code == 503
    # Python joins the threads of a pool when the process ends.
    names = lambda: [one.name for one in threading.enumerate()]  # noqa: E731
    eventually(lambda: not any(name.startswith("otlp") for name in names()), 5, "the threads' end")


def mutated(body: bytes, at: list[tuple[int, int]]) -> bytes:
    """The body with some bytes replaced, or cut off."""
    changed = bytearray(body)
    for place, byte in at:
        changed[place % len(changed)] = byte
    return bytes(changed[: at[0][0] % len(changed)] if at[0][1] % 4 == 0 else changed)


MUTATIONS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4)


@given(MUTATIONS, st.booleans())
@hypothesis_settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_mutated_requests_are_answered_and_counted(
    http: TestClient, written: Written, mutations: list[tuple[int, int]], is_json: bool
) -> None:
    body = mutated(BODY if is_json else protobuf(BODY.decode()), mutations)
    before = answered()
    answer = post(http, body, JSON if is_json else PROTOBUF)
    assert answer.status_code in (200, 400)
    assert answered() == before + 1


def answered() -> float:
    return sum(answers().values())


def answers() -> Counter[int]:
    """How many requests had each answer."""
    [family] = metrics.REQUESTS.collect()
    found = [one for one in family.samples if one.name.endswith("_total")]
    named = [one for one in found if one.labels["operation"] == otlp.OPERATION]
    return Counter({int(one.labels["status"]): int(one.value) for one in named if one.value})


@pytest.mark.parametrize("number", [1_000, pytest.param(100_000, marks=pytest.mark.faults)])
@pytest.mark.timeout(3_000)
def test_mutated_requests_over_http_and_kafka_are_counted(
    kafka: str, tmp_path: Path, number: int
) -> None:
    """The server answers each, and the worker takes each one that the server accepted."""
    settings = installation(kafka, tmp_path)
    app = create_app(World()._running, Traces(settings))
    fleet, before = Fleet(settings, tmp_path), answers()
    worker = start(fleet)
    try:
        with (
            listening(guarded(app, settings, host="127.0.0.1")) as url,
            httpx.Client(base_url=url, timeout=60) as client,
            ThreadPoolExecutor(8) as threads,
        ):
            found = Counter[tuple[int, bool]]()
            for seed in range(number // 1_000):
                work = partial(posted, client)
                found.update(threads.map(work, requests(1_000, seed), range(1_000)))
            assert client.get("/healthz").status_code == 200
        statuses = Counter(status for status, _ in found.elements())
        assert answers() - before == statuses
        assert statuses.total() == number
        assert set(statuses) == {200, 400, 415}
        counted, written = "retrail_otlp_requests_total", found[200, True]
        eventually(lambda: worker.working, 60, "the first request")
        eventually(lambda: worker.sample(counted) == written, 60, "all requests", interval=1.0)
        assert worker.sample(counted, result="invalid") == 0
        assert written > number // 3
        worker.leave()
    finally:
        fleet.kill_all()


def posted(client: httpx.Client, body: bytes, number: int) -> tuple[int, bool]:
    """Send a request; its status, and whether it has a valid span, so that it is to be written."""
    content, media_type, headers = body, JSON if body[:1] == b"{" else PROTOBUF, {}
    if number % 4 == 0:
        content, headers = gzip.compress(body), {"content-encoding": "gzip"}
    if number % 40 == 0:
        content = content[:-7]
    if number % 50 == 1:
        media_type = "text/plain"
    sent = {"content-type": media_type} | headers
    status = client.post(otlp.PATH, content=content, headers=sent).status_code
    return status, status == 200 and TraceRequest.decode(body).check()[0] > 0


def test_recordings_over_http_give_the_pairs_of_the_own_client(kafka: str, tmp_path: Path) -> None:
    world, settings, own = World(), installation(kafka, tmp_path), essence(own_client())
    rng = random.Random(0)
    fleet = Fleet(settings, tmp_path)
    try:
        for role in ("otlp", "judge", "mine"):
            fleet.start(role, RETRAIL_OTLP_ROOT_SECONDS="5", RETRAIL_OTLP_QUIET_SECONDS="5")
        with TestClient(create_app(world._running, Traces(settings))) as http:
            for number, name in enumerate(RECORDED):
                # As the SDK's batches: spans in the order of their ends. Collectors reorder and
                # repeat them.
                requests = [json.loads(line) for line in lines_of(name)]
                parts = [part for each in requests for part in each["resourceSpans"]]
                if number % 3:
                    parts = rng.sample(parts, len(parts)) + rng.sample(parts, len(parts) // 2)
                body = json.dumps({"resourceSpans": parts})
                if number % 2:
                    packed = gzip.compress(body.encode())
                    answer = post(http, packed, **{"content-encoding": "gzip"})
                else:
                    answer = post(http, protobuf(body), PROTOBUF)
                assert answer.status_code == 200
                # What is answered is on the topic.
                assert len(read(settings, Topics.of(settings).otlp_spans)) == number + 1
        expected = len(own) * len(RECORDED)
        eventually(lambda: len(pairs_of(settings)) >= expected, 90, "all pairs", interval=1.0)
        by_trajectory = defaultdict(list)
        for pair in pairs_of(settings):
            by_trajectory[pair.trajectory_id].append(pair)
        assert [essence(pairs) for pairs in by_trajectory.values()] == [own] * len(RECORDED)
    finally:
        fleet.kill_all()
