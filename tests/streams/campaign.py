"""A fault campaign: a stream of trajectories while workers are killed at random moments."""

import os
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from schemas.events import Envelope
from schemas.pairs import LabelledPair
from tests.streams.fleet import Fleet, Worker, pairs_of, publish
from tests.waiting import eventually

REPORTS: list["Report"] = []
"""Of this test session; printed at its end."""


def drawn() -> tuple[int, random.Random]:
    """A seed, ``FAULTS_SEED`` or a fresh one, and its generator; a failed test shows the seed."""
    seed = int(os.environ.get("FAULTS_SEED", secrets.randbelow(10**6)))
    print(f"FAULTS_SEED={seed}")
    return seed, random.Random(seed)


@dataclass(frozen=True)
class Report:
    """What a campaign did, and what became of the pairs."""

    name: str
    seed: int | None
    faults: str
    events: int
    pairs: int
    lost: int
    changed: int
    extra: int
    repeated: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.name}: seed {self.seed}, {self.faults}; {self.events:,} events, "
            f"{self.pairs:,} pairs: {self.lost} lost, {self.changed} changed, {self.extra} extra, "
            f"{self.repeated:,} repeated; {self.seconds:.0f} s"
        )


@dataclass
class Clock:
    """Measures a campaign, and judges its pairs."""

    name: str
    seed: int | None = None
    faults: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    def close(self, fleet: Fleet, expected: dict[str, LabelledPair], events: int) -> Report:
        """Compare every pair on the topic with the expected ones; assert that all are right."""
        found = pairs_of(fleet.settings)
        ids = {pair.pair_id for pair in found}
        report = Report(
            name=self.name,
            seed=self.seed,
            faults=", ".join(f"{number} {what}" for what, number in self.faults.items()),
            events=events,
            pairs=len(expected),
            lost=len(expected.keys() - ids),
            changed=sum(
                pair.pair_id in expected and pair.content() != expected[pair.pair_id]
                for pair in found
            ),
            extra=len(ids - expected.keys()),
            repeated=len(found) - len(ids),
            seconds=time.monotonic() - self.began,
        )
        REPORTS.append(report)
        assert (report.lost, report.changed, report.extra) == (0, 0, 0), str(report)
        return report


@contextmanager
def publishing(
    fleet: Fleet, events: Sequence[Envelope], rate: float, patience: float = 30
) -> Iterator[None]:
    """Publish at ``rate`` events a second meanwhile; at the end what is left at once.

    An event that is not acknowledged within ``patience`` seconds fails the test.
    """
    hurry, failures = threading.Event(), list[BaseException]()
    slice_ = max(1, int(rate / 5))

    def work() -> None:
        try:
            for start in range(0, len(events), slice_):
                publish(fleet.settings, events[start : start + slice_], patience)
                hurry.wait(0.2)
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        hurry.set()
        thread.join()
    assert not failures, failures


EARLY = 0.2
"""The share of kills that may hit a worker which has no partitions yet."""


def kill_at_random(
    fleet: Fleet, clock: Clock, rng: random.Random, kills: int, each: int = 1, longest: float = 6.0
) -> None:
    """Kill -9 workers that own partitions at random moments, ``kills`` times; replace them.

    Others are killed while they wait for partitions, mostly at their start; they are counted beside
    these. With ``each`` > 1, now and then one is asked to leave instead, so that the group
    rebalances without a dead member, and its heir comes only later.
    """
    workers: list[Worker] = [fleet.start(role) for _ in range(each) for role in ("judge", "mine")]
    done = 0
    while done < kills:
        place = rng.randrange(len(workers))
        victim = workers[place]
        if rng.random() >= EARLY:
            eventually(lambda victim=victim: victim.working, 60, f"partitions of {victim.role}")
        time.sleep(rng.uniform(0.1, longest))
        assert victim.process.poll() is None, victim.log[-3000:]
        if each > 1 and rng.random() < 0.2:
            working, status = victim.working, victim.stop()
            assert status == 0 or not working, victim.log[-3000:]
            clock.faults[f"{victim.role} asked to leave"] += 1
            time.sleep(rng.uniform(0, 2))
        else:
            state = "working" if victim.working else "waiting"
            victim.kill()
            clock.faults[f"kill -9 of a {state} {victim.role}"] += 1
            done += state == "working"
        workers[place] = fleet.start(victim.role)
