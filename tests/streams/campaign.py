"""A fault campaign: a stream of trajectories while workers are killed at random moments."""

import os
import random
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from schemas.events import Envelope
from schemas.pairs import LabelledPair
from tests.streams.fleet import Fleet, Worker, pairs_of, publish

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
    faults: int
    events: int
    pairs: int
    lost: int
    changed: int
    extra: int
    repeated: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.name}: seed {self.seed}, {self.faults} faults, {self.events:,} events, "
            f"{self.pairs:,} pairs: {self.lost} lost, {self.changed} changed, {self.extra} extra, "
            f"{self.repeated:,} repeated; {self.seconds:.0f} s"
        )


@dataclass
class Clock:
    """Measures a campaign, and judges its pairs."""

    name: str
    seed: int | None = None
    faults: int = 0
    began: float = field(default_factory=time.monotonic)

    def close(self, fleet: Fleet, expected: dict[str, LabelledPair], events: int) -> Report:
        """Compare every pair on the topic with the expected ones; assert that all are right."""
        found = pairs_of(fleet.settings)
        ids = {pair.pair_id for pair in found}
        report = Report(
            name=self.name,
            seed=self.seed,
            faults=self.faults,
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
def publishing(fleet: Fleet, events: Sequence[Envelope], rate: float) -> Iterator[threading.Event]:
    """Publish at ``rate`` events a second meanwhile; at the end what is left at once."""
    hurry, failures = threading.Event(), list[BaseException]()
    slice_ = max(1, int(rate / 5))

    def work() -> None:
        try:
            for start in range(0, len(events), slice_):
                publish(fleet.settings, events[start : start + slice_])
                hurry.wait(0.2)
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield hurry
    finally:
        hurry.set()
        thread.join()
    assert not failures, failures


def kill_at_random(
    fleet: Fleet, rng: random.Random, kills: int, each: int = 1, longest: float = 6.0
) -> None:
    """Kill -9 a worker at a random moment, and start another in its place, ``kills`` times.

    With ``each`` > 1, now and then one is asked to leave instead, so that the group rebalances
    without a dead member, and its heir comes only later.
    """
    workers: list[Worker] = [fleet.start(role) for _ in range(each) for role in ("judge", "mine")]
    done = 0
    while done < kills:
        time.sleep(rng.uniform(0.1, longest))
        place = rng.randrange(len(workers))
        victim = workers[place]
        assert victim.process.poll() is None, victim.log[-3000:]
        if each > 1 and rng.random() < 0.2:
            victim.process.terminate()
            victim.wait()
            time.sleep(rng.uniform(0, 2))
        else:
            victim.kill()
            done += 1
        workers[place] = fleet.start(victim.role)
