"""What searchers see of a refresh and of a swap."""

import itertools
import threading
import time
from typing import NamedTuple

from benchmarks.index.searching import K, percentile
from benchmarks.index.world import Figures, World
from schemas.errors import RetrailError
from serving.retriever import Retriever

CALM_SECONDS = 5.0
AROUND = 2.0
"""Seconds before and after the first answer by the new version that count as its neighbourhood."""
ROLLBACKS = 4
PAUSE = 0.01
"""Between two searches: a searcher that leaves the cores to the build."""


class Answer(NamedTuple):
    """One search: when it was asked and answered, and by which version; 0 if it failed."""

    asked: float
    answered: float
    version: int


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
            asked = time.perf_counter()
            try:
                version = self._retriever.search(f"kaba fen {number}", K).retriever_version
            except RetrailError:
                version = 0
            self.answers.append(Answer(asked, time.perf_counter(), version))


def described(when: str, answers: list[Answer]) -> Figures:
    """Median, p99 and maximum."""
    times = [answer.answered - answer.asked for answer in answers]
    return {
        f"{when}, p50 ms": percentile(times, 0.5) * 1000,
        f"{when}, p99 ms": percentile(times, 0.99) * 1000,
        f"{when}, max ms": max(times) * 1000,
    }
