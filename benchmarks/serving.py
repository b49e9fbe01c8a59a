"""What a search of ``retrail serve`` waits for: Kafka's acknowledgement, and a new model.

``python -m benchmarks.serving`` starts Apache Kafka and Milvus Lite of its own and prints:

- ``ack``: the time of a search over HTTP with and without waiting for the acknowledgement, in turns
  of 100, and with Kafka stopped (SIGSTOP). One caller, and a retriever that takes no time.
- ``switch``: the slowest search of 16 callers of :class:`~serving.async_retriever.AsyncRetriever`
  while the alias moves ten times to a build of another model, which takes 2 s to load; loaded in a
  thread of its own, and as before in the thread of the search that finds the alias changed.
"""

import argparse
import asyncio
import multiprocessing
import os
import secrets
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from benchmarks.index.searching import percentile
from consumers.indexing.collection import Row
from consumers.indexing.milvus import Milvus
from deploy import topics
from deploy.kafka import KafkaBroker
from deploy.milvus import MilvusLite
from retrail_runtime.milvus import Build, collection_name
from retrail_runtime.retry import Deadline
from schemas.errors import RetrailError
from schemas.settings import Settings
from serving import running
from serving.async_retriever import AsyncRetriever
from serving.http_api import create_app
from serving.retriever import Hit, Retriever, SearchResult
from serving.service import SearchService
from serving.target import Target
from tests.serving.numbers import DIMENSION, Numbers

SEARCHES, TURN, STOPPED = 1_000, 100, 10
SWITCHES, CALLERS, LOAD_SECONDS = 10, 16, 2.0


class NoTime:
    """A retriever that takes no time."""

    def search_many(
        self, queries: Sequence[str], k: int, tenants: Sequence[str | None] = ()
    ) -> list[SearchResult]:
        """Ten hits for each query."""
        hits = [Hit(f"d{rank}", rank, 1 / rank, "", "A text.") for rank in range(1, 11)]
        return [SearchResult(hits, 1) for _ in queries]

    def version(self) -> int:
        """Ready."""
        return 1

    def close(self) -> None:
        """Nothing to close."""


def acknowledgement(broker: KafkaBroker, folder: Path) -> None:
    """Print the times of searches with and without waiting, and with Kafka stopped."""
    settings = Settings(kafka_bootstrap=broker.client_address, data_dir=folder)
    topics.ensure(settings)
    no_wait = settings.model_copy(update={"serve_ack_seconds": 1e-6})
    taken: dict[str, list[float]] = {"waiting": [], "not waiting": []}
    with ExitStack() as stack:
        urls = {
            "waiting": stack.enter_context(served(settings)),
            "not waiting": stack.enter_context(served(no_wait)),
        }
        http = stack.enter_context(httpx.Client(timeout=60))
        for url in urls.values():
            search(http, url)
        for _ in range(SEARCHES // TURN):
            for name, url in urls.items():
                taken[name] += [search(http, url) for _ in range(TURN)]
        assert broker.child is not None
        os.kill(broker.child.pid, signal.SIGSTOP)
        try:
            taken["waiting, Kafka stopped"] = [
                search(http, urls["waiting"]) for _ in range(STOPPED)
            ]
            taken["not waiting, Kafka stopped"] = [
                search(http, urls["not waiting"]) for _ in range(STOPPED)
            ]
        finally:
            os.kill(broker.child.pid, signal.SIGCONT)
    for name, seconds in taken.items():
        p50, p99 = (1000 * percentile(seconds, share) for share in (0.5, 0.99))
        print(f"{name}: {len(seconds)} searches, p50 {p50:.1f} ms, p99 {p99:.1f} ms", flush=True)


def search(http: httpx.Client, url: str) -> float:
    """Seconds of a search."""
    began = time.perf_counter()
    answer = http.post(f"{url}/v1/search", json={"query": "when was the lamp lit"})
    took = time.perf_counter() - began
    answer.raise_for_status()
    return took


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The HTTP API on a free port, in a process of its own; yields its URL."""
    processes = multiprocessing.get_context("spawn")
    address = processes.SimpleQueue()
    server = processes.Process(target=serve, args=(settings, address))
    server.start()
    try:
        yield address.get()
    finally:
        server.terminate()
        server.join()


def serve(settings: Settings, address: Any) -> None:
    """Answer searches until SIGTERM."""
    publisher = running.publisher(settings)

    @asynccontextmanager
    async def service() -> AsyncIterator[SearchService]:
        retriever: Any = NoTime()
        async with running.serving(settings, retriever, publisher, b"0123456789abcdef") as found:
            yield found

    with running.listen("127.0.0.1", 0, settings) as listener:
        address.put(running.address(listener))
        server = uvicorn.Server(uvicorn.Config(create_app(service), log_config=None))
        server.run(sockets=[listener])


def load(_: Settings, build: Build) -> Any:
    """A model that takes a while to load."""
    if build.version > 1:
        time.sleep(LOAD_SECONDS)
    return Numbers(build.version)


class LoadsInTheSearch(Retriever):
    """Loads a new model before the search that finds the alias changed goes on, as it was once."""

    def _current(self, deadline: Deadline, *, confirmed: bool) -> Target:
        found = super()._current(deadline, confirmed=confirmed)
        loading = self._loading
        return found if loading is None else loading.result(Deadline(60))


def put(settings: Settings, version: int) -> None:
    """A build of one document, and the alias on it."""
    name = collection_name(settings.retriever, version)
    build = Build(name, version, secrets.token_hex(4), "somewhere", f"{version:064}")
    shell = Milvus(settings, vector_index="FLAT")
    shell.create(build, DIMENSION)
    [vector] = Numbers(version).encode_queries(["a"])
    shell.upsert(build, [Row("a", "", "a text", "h", vector)])
    shell.make_searchable(build)
    shell.swap(build)


def switches(uri: str, kind: Callable[..., Retriever]) -> None:
    """Print what 16 callers see of ten switches."""
    settings = Settings(milvus_uri=uri, retriever=f"r{secrets.token_hex(4)}")
    put(settings, 1)
    taken: list[float] = []
    failed = 0

    async def go() -> None:
        retriever = AsyncRetriever(kind(settings, load=load, seconds=60), seconds=60)
        reached = {version: asyncio.Event() for version in range(1, SWITCHES + 2)}
        done = asyncio.Event()

        async def call() -> None:
            nonlocal failed
            while not done.is_set():
                began = time.perf_counter()
                try:
                    reached[(await retriever.search("a", k=1)).retriever_version].set()
                except RetrailError:
                    failed += 1
                taken.append(time.perf_counter() - began)

        async with retriever:
            await retriever.version()
            callers = [asyncio.create_task(call()) for _ in range(CALLERS)]
            for version in range(2, SWITCHES + 2):
                await asyncio.to_thread(put, settings, version)
                await reached[version].wait()
            done.set()
            await asyncio.gather(*callers)

    asyncio.run(go())
    print(
        f"{kind.__name__}: {len(taken)} searches, {failed} failed, p50 "
        f"{1000 * percentile(taken, 0.5):.1f} ms, p99 {1000 * percentile(taken, 0.99):.1f} ms, "
        f"slowest {1000 * max(taken):.0f} ms",
        flush=True,
    )


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=["ack", "switch"], choices=["ack", "switch"])
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "ack" in only:
            broker = KafkaBroker(folder / "kafka", folder / "kafka.log")
            broker.start()
            try:
                acknowledgement(broker, folder)
            finally:
                broker.stop()
        if "switch" in only:
            milvus = MilvusLite(folder / "milvus", folder / "milvus.log")
            milvus.start()
            try:
                for kind in (LoadsInTheSearch, Retriever):
                    switches(milvus.client_address, kind)
            finally:
                milvus.stop()


if __name__ == "__main__":
    main()
