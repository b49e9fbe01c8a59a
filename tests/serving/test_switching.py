"""The retriever while models are switched or loaded, and while Milvus hangs."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from starlette.testclient import TestClient

from consumers.indexing.milvus import Milvus
from deploy.milvus import MilvusLite
from retrail_runtime.milvus import Build
from schemas.errors import ModelError
from schemas.settings import Settings
from serving import retriever as module
from serving import target
from serving.async_retriever import AsyncRetriever
from serving.http_api import create_app
from serving.retriever import Retriever
from serving.service import SearchService
from tests.serving.fakes import SECRET, Remembering
from tests.serving.numbers import Numbers, numbers, put, settings_for
from tests.waiting import eventually


def test_the_alias_is_asked_once_a_second_and_models_load_before_the_switch(
    here: Settings,
) -> None:
    put(here, 1, ["a", "b"])
    loading, loaded = threading.Event(), threading.Event()

    def load(settings: Settings, build: Build) -> Numbers:
        if build.version == 2:
            loading.set()
            assert loaded.wait(20)
        return Numbers(build.version)

    with Retriever(here, load=load) as retriever:
        assert retriever.search("a").retriever_version == 1
        put(here, 2, ["a", "c"])
        slow = threading.Thread(
            target=lambda: eventually(lambda: retriever.search("a").retriever_version == 2)
        )
        slow.start()
        assert loading.wait(10)
        during = retriever.search("b", k=1)
        assert (during.retriever_version, during.hits[0].doc_id) == (1, "b")
        loaded.set()
        slow.join()
        assert retriever.search("c", k=1).hits[0].doc_id == "c"


def test_a_collection_of_the_same_model_is_searched_without_loading_it_again(
    here: Settings,
) -> None:
    loaded: list[str] = []

    def load(settings: Settings, build: Build) -> Numbers:
        loaded.append(build.collection)
        return Numbers(build.version)

    before = put(here, 1, ["a"])
    with Retriever(here, load=load) as retriever:
        retriever.search("a")
        again = put(here, 1, ["a", "b"], rebuild="aaaa0001")
        eventually(lambda: retriever.open("b"))
        assert retriever.search("b", k=1).hits[0].doc_id == "b"
        assert retriever.search("b").retriever_version == 1
    assert before.digest == again.digest
    assert loaded == [before.collection]


def test_a_model_that_does_not_load_leaves_the_index_before_in_use(here: Settings) -> None:
    put(here, 1, ["a"])
    tried = threading.Event()

    def load(settings: Settings, build: Build) -> Numbers:
        if build.version == 2:
            tried.set()
            raise ModelError("broken")
        return Numbers(build.version)

    with Retriever(here, load=load) as retriever:
        retriever.search("a")
        put(here, 2, ["b"])
        eventually(lambda: retriever.search("a") and tried.is_set())
        assert retriever.search("a").retriever_version == 1


def test_a_switch_under_16_callers_fails_and_delays_none(here: Settings) -> None:
    """Ten switches; a search that waited for a model would take as long as its load."""
    put(here, 1, ["a"])
    load_seconds = 2.0  # Longer than a busy machine pauses.

    def load(_: Settings, build: Build) -> Numbers:
        time.sleep(load_seconds if build.version > 1 else 0.0)
        return Numbers(build.version)

    async def go() -> tuple[set[int], float]:
        retriever = AsyncRetriever(Retriever(here, load=load, seconds=10), seconds=10)
        versions: set[int] = set()
        slowest = 0.0
        done = asyncio.Event()

        async def call() -> None:
            nonlocal slowest
            while not done.is_set():
                began = time.monotonic()
                result = await retriever.search("a", k=1)
                slowest = max(slowest, time.monotonic() - began)
                versions.add(result.retriever_version)

        async with retriever:
            await retriever.version()
            callers = [asyncio.create_task(call()) for _ in range(16)]
            for version in range(2, 12):
                await asyncio.to_thread(put, here, version, ["a"])
                while version not in versions:
                    await asyncio.sleep(0.05)
                    assert not any(caller.done() for caller in callers)
            done.set()
            await asyncio.gather(*callers)
        return versions, slowest

    versions, slowest = asyncio.run(go())
    assert versions == set(range(1, 12))
    assert slowest < load_seconds, "a search waited for a model"


def test_the_model_of_an_earlier_alias_is_not_taken_when_it_comes_late(here: Settings) -> None:
    shell = Milvus(here)
    first = put(here, 1, ["a"])
    loading, loaded, over = threading.Event(), threading.Event(), threading.Event()

    def load(_: Settings, build: Build) -> Numbers:
        if build.version == 2:
            loading.set()
            assert loaded.wait(20)
            over.set()
        return Numbers(build.version)

    with Retriever(here, load=load) as retriever:
        assert retriever.version() == 1
        put(here, 2, ["a"])
        eventually(lambda: retriever.version() and loading.is_set())
        shell.swap(first)
        resolved = time.monotonic() + 2 * module.CACHED_SECONDS
        eventually(lambda: retriever.version() == 1 and time.monotonic() > resolved)
        switches = REGISTRY.get_sample_value("retrail_search_model_switches_total")
        loaded.set()
        assert over.wait(10)
        eventually(lambda: "load-model" not in {thread.name for thread in threading.enumerate()})
        assert retriever.search("a").retriever_version == 1
        assert REGISTRY.get_sample_value("retrail_search_model_switches_total") == switches


def test_a_model_that_did_not_load_is_tried_again(
    here: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "RELOAD_SECONDS", 0.0)
    put(here, 1, ["a"])
    tries: list[int] = []

    def load(_: Settings, build: Build) -> Numbers:
        tries.append(build.version)
        if len(tries) == 1:
            raise MemoryError("no memory now")
        return Numbers(build.version)

    with Retriever(here, load=load) as retriever:
        with pytest.raises(MemoryError):
            retriever.search("a")
        assert retriever.search("a").retriever_version == 1
    assert tries == [1, 1]


def test_a_call_waits_for_the_first_model_until_its_deadline(here: Settings) -> None:
    put(here, 1, ["a"])
    loaded = threading.Event()

    def load(_: Settings, build: Build) -> Numbers:
        assert loaded.wait(20)
        return Numbers(build.version)

    with Retriever(here, load=load, seconds=0.3) as retriever:
        for call in (lambda: retriever.search("a"), retriever.version):
            with pytest.raises(ModelError, match="is being loaded"):
                call()
        loaded.set()
        assert eventually(lambda: retriever.search("a")).retriever_version == 1


def test_closing_ends_the_wait_for_a_model(here: Settings) -> None:
    put(here, 1, ["a"])
    loading, loaded = threading.Event(), threading.Event()

    def load(_: Settings, build: Build) -> Numbers:
        loading.set()
        loaded.wait(20)
        return Numbers(build.version)

    retriever = Retriever(here, load=load)
    with ThreadPoolExecutor(1) as pool:
        search = pool.submit(retriever.search, "a")
        assert loading.wait(10)
        retriever.close()
        with pytest.raises(ModelError, match="closed"):
            search.result(10)
    loaded.set()


def test_case_milvus_stopped_with_sigstop(tmp_path: Path) -> None:
    """Searches get 503 within the deadline, ``/readyz`` is 503; both are well after SIGCONT."""
    server = MilvusLite(tmp_path / "milvus", tmp_path / "milvus.log")
    server.start()
    settings = settings_for(f"http://{server.address}")
    settings = settings.model_copy(update={"serve_deadline_seconds": 3.0})
    publisher = Remembering()

    @asynccontextmanager
    async def running() -> AsyncIterator[SearchService]:
        retriever = Retriever(settings, load=numbers, seconds=settings.serve_deadline_seconds)
        searches = AsyncRetriever(retriever, seconds=settings.serve_deadline_seconds)
        service = SearchService(settings, searches, publisher, SECRET)
        async with service.running():
            yield service

    try:
        put(settings, 1, ["a"])
        with TestClient(create_app(running), base_url="http://127.0.0.1") as http:
            eventually(lambda: http.get("/readyz").is_success)
            assert server.child is not None
            os.kill(server.child.pid, signal.SIGSTOP)
            try:
                eventually(lambda: http.get("/readyz").status_code == 503, 10)
                for _ in range(2):
                    began = time.monotonic()
                    answer = http.post("/v1/search", json={"query": "a"})
                    assert answer.status_code == 503
                    assert answer.headers["retry-after"] == "1"
                    assert time.monotonic() - began < settings.serve_deadline_seconds + 1.5
                    assert http.get("/readyz").status_code == 503
                    assert http.get("/v1/documents/a").status_code == 503
            finally:
                os.kill(server.child.pid, signal.SIGCONT)
            eventually(lambda: http.post("/v1/search", json={"query": "a"}).is_success)
            eventually(lambda: http.get("/readyz").is_success)
    finally:
        server.stop()
