"""The HTTP API: its contract, the trajectories it keeps, its errors."""

import logging
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
import structlog
from hypothesis import HealthCheck, settings
from prometheus_client import REGISTRY
from pydantic import SecretStr
from starlette.testclient import TestClient

from retrail import Trajectory
from schemas.errors import MilvusUnavailableError, ModelError, NoIndexError
from serving import problems
from serving import service as service_module
from serving.guards import guarded
from serving.problems import TRAJECTORY_HEADER
from tests.serving.fakes import TEXTS, Remembering, World
from tests.waiting import eventually

TOKEN = "0123456789abcdef"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def http(world: World) -> Iterator[TestClient]:
    with TestClient(world.app, base_url="http://127.0.0.1", raise_server_exceptions=False) as http:
        yield http


# -- Its own description ---------------------------------------------------------------------------


def described() -> schemathesis.BaseSchema:
    world = World(serve_token=SecretStr(TOKEN))
    # All that may be said to a request that the contract does not allow.
    refusals = ["400", "401", "403", "404", "405", "408", "413", "422", "503"]
    config = {"checks": {"negative_data_rejection": {"expected-statuses": refusals}}}
    found = schemathesis.openapi.from_dict(
        world.app.openapi(), config=schemathesis.Config.from_dict(config)
    )
    found.app = guarded(world.app, world.settings, host="0.0.0.0")
    return found


schema = described()


@schema.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_it_keeps_its_openapi_document(case: schemathesis.Case) -> None:
    case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"})


def test_errors_and_headers_are_described(world: World) -> None:
    api = world.app.openapi()
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, item in api["paths"].items():
        for operation in item.values():
            assert operation["tags"]
            for status, response in operation["responses"].items():
                assert int(status) < 400 or response["content"] == problem
            for parameter in operation.get("parameters", []):
                assert parameter["in"] == "path" or parameter["description"]
        if path.startswith("/v1/"):
            [operation] = item.values()
            for status, header in (
                ("200", TRAJECTORY_HEADER),
                ("503", "Retry-After"),
                ("401", "WWW-Authenticate"),
            ):
                assert operation["responses"][status]["headers"][header]["description"]
    assert {tag["name"] for tag in api["tags"]} == {"search", "trajectories", "probes"}
    assert "pattern" in api["components"]["schemas"]["HttpSearchRequest"]["properties"]["query"]


def test_the_documentation_needs_no_internet_and_no_token() -> None:
    world = World(serve_token=SecretStr(TOKEN))
    app = guarded(world.app, world.settings, host="0.0.0.0")
    with TestClient(app) as http:
        page = http.get("/docs")
        assert page.status_code == 200
        links = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
        assert len(links) >= 3
        for link in links:
            assert link.startswith("/static-offline-docs/")
            assert http.get(link).status_code == 200, link
        assert "https://" not in page.text
        [description] = re.findall(r"url: '([^']+)'", page.text)
        assert "bearer" in http.get(description).text
        assert http.get("/metrics").status_code == 401


# -- Searching and opening -------------------------------------------------------------------------


def test_hits_come_with_their_beginnings_and_a_trajectory(http: TestClient) -> None:
    answer = http.post("/v1/search", json={"query": "open a gzip file", "k": 2})
    assert answer.status_code == 200
    found = answer.json()
    assert found["retriever_version"] == 1
    assert [hit["doc_id"] for hit in found["hits"]] == ["gzip", "json#0"]
    assert found["hits"][0] == {
        "doc_id": "gzip",
        "rank": 1,
        "score": 0.4,
        "title": "gzip",
        "snippet": TEXTS["gzip"],
    }
    assert found["trajectory_id"] == answer.headers[TRAJECTORY_HEADER]
    assert "note" not in found


def test_a_search_need_not_be_published(world: World, http: TestClient) -> None:
    body = {"query": "open a gzip file", "reasoning": "r", "publish": False}
    assert http.post("/v1/search", json=body).json()["hits"][0]["doc_id"] == "gzip"
    assert world.log.events == {}


def test_an_answer_from_a_half_built_index_says_so(world: World, http: TestClient) -> None:
    world.retriever.note = "12% of all documents indexed"
    found = http.post("/v1/search", json={"query": "open a gzip file"}).json()
    assert found["note"] == world.retriever.note
    world.retriever.failure = NoIndexError("none", progress=world.retriever.note)
    answer = http.post("/v1/search", json={"query": "open a gzip file"})
    assert answer.status_code == 503
    assert answer.json()["detail"] == "There is no index yet: 12% of all documents indexed."


def test_hits_have_whole_texts_if_asked_for(http: TestClient) -> None:
    body = {"query": "open a gzip file", "texts": True}
    hits = http.post("/v1/search", json=body).json()["hits"]
    assert {hit["doc_id"]: hit["text"] for hit in hits} == TEXTS


def test_a_document_with_a_url_is_shown_with_it(world: World, http: TestClient) -> None:
    url = world.retriever.urls["gzip"] = "https://example.org/gzip"
    hits = http.post("/v1/search", json={"query": "open a gzip file"}).json()["hits"]
    assert {hit["doc_id"]: hit.get("url") for hit in hits} == dict.fromkeys(TEXTS) | {"gzip": url}
    assert http.get("/v1/documents/gzip").json()["url"] == url
    assert "url" not in http.get("/v1/documents/json%230").json()


@pytest.mark.parametrize("doc_id", [*TEXTS, "two\nlines", "ends\n", "a\ttab", "ü/?&="])
def test_documents_are_whole_whatever_their_ids(
    doc_id: str, world: World, http: TestClient
) -> None:
    world.retriever.texts.setdefault(doc_id, "A text.")
    path = quote(doc_id)
    wanted = {"doc_id": doc_id, "title": doc_id, "text": world.retriever.texts[doc_id]}
    for answer in (
        http.get(f"/v1/documents/{path}"),
        http.get(f"/v1/documents/{path.replace('/', '%2F')}"),
        http.post("/v1/open", json={"doc_id": doc_id}),
    ):
        assert answer.status_code == 200
        found = answer.json()
        assert found.pop("trajectory_id") == answer.headers[TRAJECTORY_HEADER]
        assert found == wanted


@pytest.mark.parametrize("name", ["a b", "x" * 161, "é", "a/b", "a\n"])
def test_an_invalid_name_is_rejected(name: str, http: TestClient) -> None:
    headers = [(TRAJECTORY_HEADER.encode(), name.encode())]
    answer = http.post("/v1/search", json={"query": "gzip"}, headers=headers)
    assert answer.status_code == 422


def test_an_unknown_document_keeps_the_reasoning_and_opens_nothing(
    world: World, http: TestClient
) -> None:
    body = {"doc_id": "absent", "reasoning": "I guess."}
    answer = http.post("/v1/open", json=body)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert "no document with this id" in answer.json()["detail"]
    assert world.log.events[answer.headers[TRAJECTORY_HEADER]] == [("reasoning", "I guess.")]


# -- What is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({}, "body.query"),
        ({"query": ""}, "body.query"),
        ({"query": " \t\n\u3000"}, "body.query"),
        ({"query": "x" * 4001}, "body.query"),
        ({"query": 5}, "body.query"),
        ({"query": "a", "k": 0}, "body.k"),
        ({"query": "a", "k": 101}, "body.k"),
        ({"query": "a", "K": 1}, "body.K"),
    ],
)
def test_an_invalid_request_names_the_place(body: object, at: str, http: TestClient) -> None:
    answer = http.post("/v1/search", json=body)
    assert answer.status_code == 422
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert at in problem["detail"]
    assert ".".join(problem["errors"][0]["at"]) == at


@pytest.mark.parametrize(
    "content", [b"{", b"\xff", b'{"query": "\\ud800"}', b"[" * 100_000, b"null"]
)
def test_what_cannot_be_read_is_the_clients_fault(content: bytes, http: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    answer = http.post("/v1/search", content=content, headers=headers)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("error", "retry_after"),
    [
        (NoIndexError("Milvus at http://10.0.0.7:19530 has no alias"), "5"),
        (MilvusUnavailableError("Milvus at http://10.0.0.7:19530 failed"), "1"),
        (ModelError("/srv/registry/10.0.0.7 is not there"), "30"),
    ],
)
def test_an_index_that_cannot_answer_is_a_503_that_publishes_nothing(
    error: Exception, retry_after: str, world: World, http: TestClient
) -> None:
    world.retriever.failure = error
    for answer in (
        http.post("/v1/search", json={"query": "a", "reasoning": "r"}),
        http.get("/v1/documents/a"),
        http.get("/readyz"),
    ):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == retry_after
        assert answer.headers["content-type"] == "application/problem+json"
        assert "10.0.0.7" not in answer.text
    assert world.log.events == {}
    assert http.get("/healthz").status_code == 200
    world.retriever.failure = None
    assert http.get("/readyz").json() == {"status": "ok", "retriever_version": 1}
    assert http.get("/healthz").json() == {"status": "ok", "retriever_version": 1}


def test_probes_of_a_server_that_is_not_ready_are_logged_once(
    monkeypatch: pytest.MonkeyPatch, world: World, http: TestClient
) -> None:
    eventually(lambda: http.get("/readyz").status_code == 200)
    lines = structlog.testing.LogCapture()
    recording = structlog.wrap_logger(
        None, [lines], structlog.make_filtering_bound_logger(logging.DEBUG)
    )
    for module in (service_module, problems):
        monkeypatch.setattr(module, "log", recording)
    for failure in (NoIndexError("there is no alias"), None):
        world.retriever.failure = failure
        for _ in range(3):
            assert http.get("/readyz").status_code == (503 if failure else 200)
    assert [line["event"] for line in lines.entries] == [
        "nothing can be searched now",
        "ready to search",
    ]
    assert lines.entries[0]["reason"] == "there is no alias"


def test_a_crash_is_a_500_that_reveals_nothing(world: World, http: TestClient) -> None:
    world.retriever.failure = ZeroDivisionError("a secret")
    answer = http.post("/v1/search", json={"query": "a"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text


def test_unknown_paths_and_methods_are_problems_too(http: TestClient) -> None:
    for answer, status in ((http.get("/v2"), 404), (http.put("/v1/search"), 405)):
        assert answer.status_code == status
        assert answer.json()["status"] == status


def test_a_hanging_index_does_not_hang_the_probe(
    monkeypatch: pytest.MonkeyPatch, world: World, http: TestClient
) -> None:
    monkeypatch.setattr(service_module, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(world.retriever, "version", lambda: world.retriever.goes_on.wait(30) and 7)
    assert http.get("/readyz").json()["retriever_version"] == 7
    world.retriever.goes_on.clear()
    try:
        assert http.get("/readyz").status_code == 503
        assert http.get("/readyz").status_code == 503
    finally:
        world.retriever.goes_on.set()
    eventually(lambda: http.get("/readyz").status_code == 200)


def test_the_time_of_a_request_includes_the_publishing_of_its_event(
    monkeypatch: pytest.MonkeyPatch, world: World, http: TestClient
) -> None:
    labels = {"operation": "search"}
    publishing: list[float | None] = []

    def timed() -> float | None:
        return REGISTRY.get_sample_value("retrail_serve_request_duration_seconds_count", labels)

    def trajectory(trajectory_id: str, **agent: Any) -> Trajectory:
        publishing.append(timed())
        return Remembering.trajectory(world.log, trajectory_id, **agent)

    monkeypatch.setattr(world.log, "trajectory", trajectory)
    http.post("/v1/search", json={"query": "gzip"})
    http.post("/v1/search", json={"query": "gzip"})
    first, second = publishing
    assert (second or 0) - (first or 0) == 1
    assert (timed() or 0) - (second or 0) == 1


def test_the_description_names_no_status_that_is_never_answered(world: World) -> None:
    api = world.app.openapi()
    operations = [operation for path in api["paths"].values() for operation in path.values()]
    answered = {status for operation in operations for status in operation["responses"]}
    named = set(re.findall(r"\b[45]\d\d\b", api["info"]["description"]))
    assert named <= answered


def test_metrics_are_shown(http: TestClient) -> None:
    http.post("/v1/search", json={"query": "gzip"})
    page = http.get("/metrics").text
    assert 'retrail_serve_request_duration_seconds_bucket{le="0.25",operation="search"}' in page
    assert "retrail_search_batch_queries_count" in page
    assert "retrail_serve_unacknowledged_calls_total" in page


def test_openmetrics_names_the_trajectory_of_a_slow_search(http: TestClient) -> None:
    answer = http.post("/v1/search", json={"query": "gzip"}).json()
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    page = http.get("/metrics", headers=accept)
    assert page.headers["content-type"].startswith("application/openmetrics-text")
    assert f'# {{trajectory_id="{answer["trajectory_id"]}"}}' in page.text
