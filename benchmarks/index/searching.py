"""What a search costs beside Milvus' own part, and how many are answered at once."""

import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.index import corpus
from benchmarks.index.world import Figures, World, connected
from retrail_runtime.milvus import ID_FIELD, METRIC, TEXT_FIELD, TITLE_FIELD, URL_FIELD
from retrail_runtime.retry import Deadline
from retrail_runtime.search import CONSISTENCY, resolve
from schemas.settings import Settings
from serving import target
from serving.async_retriever import AsyncRetriever
from serving.retriever import Retriever

K = 10
SEARCHES = 1_000
WARM_UP = 50
SECONDS = 2.0
ROUNDS = 3
CALLERS = (1, 8, 64)


class KnownVectors:
    """Stands for an encoder in its time: its vectors are ready."""

    def __init__(self, vectors: dict[str, NDArray[np.float32]]) -> None:
        self._vectors = vectors

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As an encoder does."""
        return np.stack([self._vectors[text] for text in texts])


def latency(world: World) -> Figures:
    """One search after the other through `Retriever` and through bare pymilvus, in turns.

    Both search with vectors that are ready: the encoder's time is in neither.
    """
    queries = corpus.queries(SEARCHES + WARM_UP)
    vectors = encoded(world.settings, queries)
    ours: list[float] = []
    bare: list[float] = []
    with (
        Retriever(world.settings, load=lambda *_: KnownVectors(vectors)) as retriever,
        connected(world.settings) as client,
    ):
        collection = resolve(client, world.settings, Deadline(30)).collection

        def through_retriever(query: str) -> None:
            retriever.search(query, K)

        def through_pymilvus(query: str) -> None:
            client.search(
                collection,
                data=[vectors[query]],
                limit=K,
                search_params={"metric_type": METRIC},
                output_fields=[ID_FIELD, TITLE_FIELD, TEXT_FIELD, URL_FIELD],
                # As the retriever asks; the collection's own level is Strong.
                consistency_level=CONSISTENCY,
            )

        for number, query in enumerate(queries):
            pairs = [(ours, through_retriever), (bare, through_pymilvus)]
            for times, search in pairs if number % 2 else reversed(pairs):
                taken = timed(search, query)
                if number >= WARM_UP:
                    times.append(taken)
    return {
        "bare pymilvus, p50 ms": statistics.median(bare) * 1000,
        "bare pymilvus, p99 ms": percentile(bare, 0.99) * 1000,
        "Retriever, p50 ms": statistics.median(ours) * 1000,
        "Retriever, p99 ms": percentile(ours, 0.99) * 1000,
        "overhead at the median, ms": (statistics.median(ours) - statistics.median(bare)) * 1000,
    }


def callers(world: World) -> Figures:
    """Queries a second with several callers at once, the encoder included; no query comes twice.

    Threads and tasks take turns, so that whatever else the machine does meets both.
    """
    figures: Figures = {}
    for count in CALLERS:
        threads, tasks, times = [], [], []
        for _ in range(ROUNDS):
            with Retriever(world.settings) as retriever:
                retriever.search("warm up", K)
                rate = in_threads(count, lambda query, r=retriever: r.search(query, K))
            threads.append(rate)
            rate, taken = asyncio.run(in_tasks(world.settings, count))
            tasks.append(rate)
            times += taken
        figures[f"Retriever, {count} threads, queries/s"] = statistics.mean(threads)
        figures[f"AsyncRetriever, {count} tasks, queries/s"] = statistics.mean(tasks)
        figures[f"AsyncRetriever, {count} tasks, p99 ms"] = percentile(times, 0.99) * 1000
    return figures


def in_threads(count: int, search: Callable[[str], object]) -> float:
    """Calls a second of ``count`` threads for :data:`SECONDS`."""
    ends = time.perf_counter() + SECONDS
    done = [0] * count

    def run(number: int) -> None:
        while time.perf_counter() < ends:
            search(f"kaba fen {number} {done[number]}")
            done[number] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - began)


async def in_tasks(settings: Settings, count: int) -> tuple[float, list[float]]:
    """Calls a second of ``count`` tasks for :data:`SECONDS`, and how long each took."""
    times: list[float] = []
    seconds = settings.serve_deadline_seconds
    found = await asyncio.to_thread(Retriever, settings, seconds=seconds)
    async with AsyncRetriever(found, seconds=seconds) as retriever:
        await retriever.search("warm up", K)
        began = time.perf_counter()

        async def run(number: int) -> None:
            done = 0
            while (asked := time.perf_counter()) < began + SECONDS:
                await retriever.search(f"kaba fen {number} {done}", K)
                times.append(time.perf_counter() - asked)
                done += 1

        await asyncio.gather(*(run(number) for number in range(count)))
        return len(times) / (time.perf_counter() - began), times


def encoded(settings: Settings, queries: list[str]) -> dict[str, NDArray[np.float32]]:
    """Vectors of queries by the model that serves."""
    with connected(settings) as client:
        encoder = target.load_encoder(settings, resolve(client, settings, Deadline(30)))
    return dict(zip(queries, encoder.encode_queries(queries), strict=True))


def timed(search: Callable[[str], None], query: str) -> float:
    """Seconds of one search."""
    began = time.perf_counter()
    search(query)
    return time.perf_counter() - began


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of all does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
