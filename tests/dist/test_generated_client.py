"""A client that openapi-python-client generates from our OpenAPI document, on a live server."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from schemas.errors import MilvusUnavailableError
from serving.guards import guarded
from tests.serving.fakes import TEXTS, World
from tests.serving.live import listening

GENERATOR = "openapi-python-client==0.29.1"
"""Not in the development environment: it needs an older typer than we have."""
NAME = "retrail_generated"
TOKEN = "0123456789abcdef"

pytestmark = [pytest.mark.dist, pytest.mark.smoke]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of the package."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_text(json.dumps(World().app.openapi()), encoding="utf-8")
    (folder / "config.yml").write_text("post_hooks: []\n", encoding="utf-8")
    command = [sys.executable, "-m", "uv", "tool", "run", "--from", GENERATOR, *GENERATE]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # It reports what it leaves out of the document.
    assert "WARNING" not in done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    yield NAME
    sys.path.remove(str(folder))


GENERATE = [
    *("openapi-python-client", "generate", "--path", "openapi.json", "--config", "config.yml"),
    *("--meta", "none", "--output-path", NAME),
]


@pytest.fixture
def world() -> World:
    return World(serve_token=SecretStr(TOKEN))


@pytest.fixture
def url(world: World) -> Iterator[str]:
    with listening(guarded(world.app, world.settings, host="127.0.0.1")) as found:
        yield found


class Client:
    """Operations of the generated package by name; each returns status, headers and the model."""

    def __init__(self, package: str, url: str, token: str = TOKEN) -> None:
        self._package = package
        self.models = importlib.import_module(f"{package}.models")
        self._client = importlib.import_module(package).AuthenticatedClient(url, token)

    def __call__(self, tag: str, operation: str, *arguments: str, **more: Any) -> Any:
        module = importlib.import_module(f"{self._package}.api.{tag}.{operation}")
        return module.sync_detailed(*arguments, client=self._client, **more)


def test_a_task_by_the_generated_client(generated: str, url: str, world: World) -> None:
    client = Client(generated, url)
    models = client.models
    found = client("search", "search", body=models.HttpSearchRequest(query="open a gzip file"))
    assert isinstance(found.parsed, models.SearchAnswer)
    assert [hit.doc_id for hit in found.parsed.hits] == ["gzip", "json#0", "zip/file"]
    trajectory = found.headers["Retrail-Trajectory"]
    assert trajectory == found.parsed.trajectory_id
    on = {"retrail_trajectory": trajectory}
    opened = client("search", "get_document", "gzip", **on)
    assert opened.parsed.text == TEXTS["gzip"]
    wanted = models.OpenRequest(doc_id="zip/file", reasoning="No.")
    assert client("search", "open_document", body=wanted, **on).parsed.text == TEXTS["zip/file"]
    reasoned = models.ReasonRequest(text="It helped.", doc_id="zip/file")
    noted = client("trajectories", "reason", trajectory, body=reasoned)
    assert noted.parsed.trajectory_id == noted.headers["Retrail-Trajectory"] == trajectory
    ended = client("trajectories", "end_trajectory", trajectory, body=models.EndRequest())
    assert ended.parsed.outcome == "unknown"
    assert [event[0] for event in world.log.events[trajectory]] == [
        *("search", "browse", "reasoning", "browse", "reasoning", "end")
    ]
    assert client("probes", "readyz").parsed.retriever_version == 1


def test_errors_are_typed(generated: str, url: str, world: World) -> None:
    client, stranger = Client(generated, url), Client(generated, url, "wrong")
    models = client.models
    query = models.HttpSearchRequest(query="gzip")
    answers = {
        401: stranger("search", "search", body=query),
        400: client("search", "search", body=query, retrail_trajectory="A" * 11 + "." + "B" * 11),
        404: client("search", "open_document", body=models.OpenRequest(doc_id="absent")),
        422: client("search", "search", body=models.HttpSearchRequest(query=" ")),
    }
    world.retriever.failure = MilvusUnavailableError("Milvus failed")
    answers[503] = client("search", "search", body=query)
    for status, answer in answers.items():
        assert answer.status_code == status
        assert isinstance(answer.parsed, models.Problem)
        assert answer.parsed.status == status
        assert answer.parsed.detail
    assert answers[422].parsed.errors[0]["at"] == ["body", "query"]
    assert answers[503].headers["Retry-After"] == "1"
    assert answers[401].headers["WWW-Authenticate"] == "Bearer"
