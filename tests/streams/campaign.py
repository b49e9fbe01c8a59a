"""A fault campaign: a stream of trajectories while workers are killed at random moments."""

import itertools
import os
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from schemas.events import Envelope
from schemas.pairs import LabelledPair
from tests.streams.fleet import Fleet, Worker
from tests.streams.topics import Transactions, pairs_of, publish
from tests.streams.trajectories import trajectory
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
        """Wait for the expected pairs, let the workers finish, and compare every pair.

        Asserts that all of these are there, no others, and that all repeats are equal.
        """
        fleet.until_pairs(expected, 120)
        fleet.finish()
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


class Agents:
    """Concurrent agents, each with one trajectory after another; every third is unnumbered."""

    def __init__(self, number: int = 10) -> None:
        self._numbers = itertools.count()
        self._left: list[list[Envelope]] = [[] for _ in range(number)]

    def events(self, rounds: int) -> list[Envelope]:
        """What they do next; each does ``rounds`` steps."""
        done = []
        for _ in range(rounds):
            for place, left in enumerate(self._left):
                if not left:
                    number = next(self._numbers)
                    events = trajectory(f"t{number}", numbered=number % 3 > 0)
                    self._left[place] = left = events[::-1]
                done.append(left.pop())
        return done

    def rest(self) -> list[Envelope]:
        """What they need to end what they began."""
        return [event for left in self._left for event in reversed(left)]


@contextmanager
def publishing(
    fleet: Fleet,
    rate: int,
    patience: float = 30,
    write: Callable[[list[Envelope]], None] | None = None,
) -> Iterator[list[Envelope]]:
    """Publish about ``rate`` events a second meanwhile; at the end, until every trajectory ends.

    Gives what was published, which is complete after it. An event that is not acknowledged within
    ``patience`` seconds fails the test. ``write`` replaces the producer, which has no transactions.
    """
    over, published, failures = threading.Event(), list[Envelope](), list[BaseException]()
    agents = Agents()

    def send(events: list[Envelope]) -> None:
        if write is None:
            publish(fleet.settings, events, patience)
        else:
            write(events)
        published.extend(events)

    def work() -> None:
        try:
            while not over.wait(0.5):
                send(agents.events(rate // 20))
            send(agents.rest())
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield published
    finally:
        over.set()
        thread.join()
    assert not failures, failures


class InTransactions:
    """Writes events in transactions of ten, in zstd batches; some transactions are aborted.

    Of the aborted ones some have events of trajectories that are never committed, others have
    events that are written again, as a producer does that tries again. Some stay open for a while.
    """

    SIZE = 10

    def __init__(self, fleet: Fleet, clock: Clock, rng: random.Random) -> None:
        self._transactions = Transactions(fleet.settings, "campaign", compression_type="zstd")
        self._clock = clock
        self._rng = rng
        self._never = (trajectory(f"never {count}") for count in itertools.count())

    def __call__(self, events: list[Envelope]) -> None:
        for start in range(0, len(events), self.SIZE):
            some, chance = events[start : start + self.SIZE], self._rng.random()
            if chance < 0.2:
                self._transactions.abort(some if chance < 0.1 else next(self._never))
                self._clock.faults["aborted transactions"] += 1
            self._transactions.begin(some)
            if chance > 0.98:
                time.sleep(self._rng.uniform(0.5, 3))
            self._transactions.producer.commit_transaction(30)
            self._clock.faults["committed transactions"] += 1


EARLY = 0.2
"""The share of kills that may hit a worker which does not work yet."""


def kill_at_random(
    fleet: Fleet,
    clock: Clock,
    rng: random.Random,
    kills: int,
    each: int = 1,
    longest: float = 6.0,
) -> None:
    """Kill -9 working workers at random moments, ``kills`` times; replace them.

    One works once it has handled records (more are coming all the time). Others are killed while
    they start, wait for partitions or fold again; they are counted beside these. With ``each`` > 1,
    now and then one is asked to leave instead, so that the group rebalances without a dead member,
    and its heir comes only later.
    """
    workers: list[Worker] = [fleet.start(role) for _ in range(each) for role in ("judge", "mine")]
    done = 0
    while done < kills:
        place = rng.randrange(len(workers))
        victim = workers[place]
        if rng.random() >= EARLY:
            eventually(lambda victim=victim: victim.working, 60, f"work of {victim.role}")
        time.sleep(rng.uniform(0.1, longest))
        assert victim.process.poll() is None, victim.log[-3000:]
        if each > 1 and rng.random() < 0.2:
            victim.leave()
            clock.faults[f"{victim.role} asked to leave"] += 1
            time.sleep(rng.uniform(0, 2))
        else:
            working = victim.working
            victim.kill()
            state = "working" if working else "waiting"
            clock.faults[f"kill -9 of a {state} {victim.role}"] += 1
            done += working
        workers[place] = fleet.start(victim.role)
