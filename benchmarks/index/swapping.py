"""What searchers see of a refresh and of a swap."""

import itertools
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.index.searching import K, percentile
from benchmarks.index.world import Figures, World
from schemas.documents import embedded_text
from schemas.errors import RetrailError
from serving.retriever import Hit, Retriever, SearchResult
from trainer.model.encoder import Encoder

CALM_SECONDS = 5.0
AROUND = 2.0
"""Seconds before and after the first answer by the new version that count as its neighbourhood."""
ROLLBACKS = 4
PAUSE = 0.01
"""Between two searches: a searcher that leaves the cores to the build."""


TOLERANCE = 0.01
"""Of a score against that of the model alone: bf16, and a text encoded in another batch."""


class Answer(NamedTuple):
    """One search: when it was asked and answered, and by which version; 0 if it failed."""

    asked: float
    answered: float
    version: int
    query: str
    hits: Sequence[Hit]


def swap(world: World) -> Figures:
    """Search latency before, during and after a refresh, and around swaps that build nothing.

    One caller searches all the time, encoder included. A rollback finds its collection ready, so
    it is a swap alone.
    """
    with Retriever(world.settings) as retriever:
        retriever.search("warm up", K)
        searcher = Searcher(retriever)
        try:
            calm_from = time.perf_counter()
            time.sleep(CALM_SECONDS)
            calm = searcher.between(calm_from, time.perf_counter())
            before, version = world.version, world.release()
            build_from = time.perf_counter()
            world.make_live(version)
            switched = searcher.await_version(world, version)
            time.sleep(AROUND)
            build = searcher.between(build_from, switched)
            around = searcher.between(switched - AROUND, switched + AROUND)
            seconds, near = [], []
            for number in range(ROLLBACKS):
                wanted = before if number % 2 == 0 else version
                began = time.perf_counter()
                world.make_live(wanted)
                switched = searcher.await_version(world, wanted)
                seconds.append(switched - began)
                time.sleep(AROUND)
                near += searcher.between(switched - AROUND, switched + AROUND)
        finally:
            searcher.stop()
    failed = sum(answer.version == 0 for answer in searcher.answers)
    return {
        "searches": len(searcher.answers),
        "searches that failed": failed,
        **foreign(world, searcher.answers, (before, version)),
        **described("before", calm),
        **described("during the build", build),
        **described("around its swap", around),
        **described("around rollbacks", near),
        "from `live` to the first answer, rollback, s": sum(seconds) / len(seconds),
    }


class Searcher:
    """Searches in a thread until stopped."""

    def __init__(self, retriever: Retriever) -> None:
        self.answers: list[Answer] = []
        self._retriever = retriever
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="searcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Return once the last search is answered."""
        self._stopping.set()
        self._thread.join()

    def await_version(self, world: World, version: int) -> float:
        """When a version gave its first answer from now on."""
        seen = len(self.answers)
        world.wait(lambda: self.answers[-1].version == version, every=0.01)
        return next(a.answered for a in self.answers[seen:] if a.version == version)

    def between(self, first: float, last: float) -> list[Answer]:
        """Searches asked then."""
        return [answer for answer in self.answers if first <= answer.asked <= last]

    def _run(self) -> None:
        for number in itertools.count():
            if self._stopping.wait(PAUSE):
                return
            query = f"kaba fen {number}"
            asked = time.perf_counter()
            try:
                found = self._retriever.search(query, K)
            except RetrailError:
                found = SearchResult([], 0)
            answered = time.perf_counter()
            version, hits = found.retriever_version, found.hits
            # Two hits of a search identify the vectors.
            self.answers.append(Answer(asked, answered, version, query, hits[:: K - 1]))


def foreign(world: World, answers: Sequence[Answer], versions: Sequence[int]) -> Figures:
    """Hits whose score is not that of the model that answered; first and last of each search.

    Raises:
        RuntimeError: the scores of the models are too close to each other to show anything.
    """
    wrong = seen = 0
    apart = []
    for version in versions:
        own = [answer for answer in answers if answer.version == version]
        scores = {v: scored(world.encoder(v), own) for v in versions}
        found = np.array([hit.score for answer in own for hit in answer.hits])
        wrong += int(np.sum(np.abs(found - scores[version]) > TOLERANCE))
        seen += len(found)
        apart += [np.abs(scores[v] - scores[version]) for v in versions if v != version]
    if np.mean(np.concatenate(apart) > TOLERANCE) < 0.5:
        raise RuntimeError("the scores of the models are too close to identify whose a hit is")
    return {"hits checked": seen, "hits of another model": wrong}


def scored(encoder: Encoder, answers: Sequence[Answer]) -> NDArray[np.float32]:
    """Cosine similarities of the hits of all answers in a row, by a model."""
    hits = [(answer.query, hit) for answer in answers for hit in answer.hits]
    queries = encoder.encode_queries([query for query, _ in hits])
    texts = encoder.encode_documents([embedded_text(hit.title, hit.text) for _, hit in hits])
    return np.sum(queries * texts, axis=1)


def described(when: str, answers: list[Answer]) -> Figures:
    """Median, p99 and maximum."""
    times = [answer.answered - answer.asked for answer in answers]
    return {
        f"{when}, p50 ms": percentile(times, 0.5) * 1000,
        f"{when}, p99 ms": percentile(times, 0.99) * 1000,
        f"{when}, max ms": max(times) * 1000,
    }
