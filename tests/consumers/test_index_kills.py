"""Milvus killed under an index worker and searches: nothing is lost, and no models are mixed."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consumers.indexing.milvus import Milvus
from deploy.errors import MissingToolError
from deploy.milvus import MilvusLite
from retrail_runtime.milvus import Build
from schemas.settings import Settings
from serving.retriever import Retriever
from tests import index_harness as harness
from tests.servers.milvus_standalone import MilvusStandalone
from tests.servers.milvus_wheel import require_platform
from tests.waiting import eventually

MOMENTS = {2: "upsert", 3: "make_searchable", 4: "swap"}
"""During what call of the building of each version the server is killed."""


@pytest.fixture(
    params=[MilvusLite, pytest.param(MilvusStandalone, marks=pytest.mark.faults)],
    ids=["milvus", "standalone"],
)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MilvusLite]:
    """A Milvus of this test alone."""
    if request.param is MilvusStandalone:
        try:
            require_platform()
        except MissingToolError as error:
            pytest.skip(str(error))
    made: MilvusLite = request.param(tmp_path / "milvus", tmp_path / "milvus.log")
    made.start()
    yield made
    made.kill()


@pytest.fixture
def milvus_uri(server: MilvusLite) -> str:
    return server.client_address


def announce(monkeypatch: pytest.MonkeyPatch, call: str, version: int) -> threading.Event:
    """Set when a worker is about to make a call for a version."""
    reached = threading.Event()
    original = getattr(Milvus, call)

    def announcing(self: Milvus, build: Build, *arguments: Any) -> Any:
        if build.version == version:
            reached.set()
        return original(self, build, *arguments)

    monkeypatch.setattr(Milvus, call, announcing)
    return reached


def test_a_kill_during_builds_and_swaps_loses_and_mixes_nothing(
    server: MilvusLite, small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = harness.documents(600)
    queries = [texts["d3"], texts["d500"], "warm river"]
    harness.publish(small, texts)
    reference = harness.Reference(small, texts)
    with harness.working(small), Retriever(small) as retriever:
        harness.serves(small, 1)
        models = harness.models(small, MOMENTS, tmp_path)
        expected = {v: reference.scores(model, queries) for v, model in models.items()}
        with harness.searching(retriever, queries, expected) as searches:
            for version, moment in MOMENTS.items():
                reached = announce(monkeypatch, moment, version)
                harness.make_live(small, version)
                assert reached.wait(60)
                server.kill()
                server.start()
                harness.serves(small, version, 90)
                eventually(lambda v=version: searches.answered_by(v), what="searches of the new")
        assert not searches.failures
        assert not searches.wrong
        milvus = Milvus(small)
        for build in milvus.builds():
            assert harness.rows(milvus, build).keys() == texts.keys()
