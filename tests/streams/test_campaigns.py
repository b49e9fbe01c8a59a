"""Long fault campaigns (``make test-faults``), and a short form of the first for every run.

After each, the pairs on the topic are those of the run without faults: none lost, changed or added.
"""

import os
import random
import signal
import time

import pytest

from schemas.topics import Topics
from tests.streams.campaign import Clock, InTransactions, drawn, kill_at_random, publishing
from tests.streams.topics import assert_judged_completely, judged_offline, pairs_of, publish, read
from tests.streams.trajectories import mined_offline, some_events
from tests.waiting import eventually

OUTAGE_SECONDS = 60.0


@pytest.mark.parametrize(
    ("kills", "each", "rate", "longest"),
    [
        pytest.param(4, 1, 60, 2.0, id="short"),
        pytest.param(24, 1, 200, 6.0, id="one-of-each", marks=pytest.mark.faults),
        pytest.param(24, 2, 200, 6.0, id="two-of-each", marks=pytest.mark.faults),
    ],
)
@pytest.mark.timeout(1_800)
def test_kills_at_random_moments(settings, fleet, kills, each, rate, longest):
    seed, rng = drawn()
    clock = Clock(f"kill -9 among {each} judges and {each} miners", seed)
    with publishing(fleet, rate) as events:
        kill_at_random(fleet, clock, rng, kills, each, longest)
    clock.close(fleet, mined_offline(events, settings), len(events))
    assert_judged_completely(settings)


@pytest.mark.faults
@pytest.mark.timeout(1_800)
def test_kills_under_a_producer_of_zstd_transactions(settings, fleet):
    """Case: a trajectory in a transaction that is aborted gave its pair."""
    seed, rng = drawn()
    clock = Clock("kill -9 among 2 judges and 2 miners, zstd transactions", seed)
    write = InTransactions(fleet, clock, random.Random(seed))
    with publishing(fleet, 200, write=write) as events:
        kill_at_random(fleet, clock, rng, 24, 2, 6.0)
    clock.close(fleet, mined_offline(events, settings), len(events))
    assert_judged_completely(settings)
    for worker in fleet.workers:
        assert '"kind": "gap"' not in worker.log


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_workers_that_sleep_past_their_session_again_and_again(settings, fleet):
    seed, rng = drawn()
    clock = Clock("SIGSTOP past the session, SIGCONT", seed)
    workers = [fleet.start(role) for _ in range(2) for role in ("judge", "mine")]
    with publishing(fleet, rate=200) as events:
        eventually(lambda: all(worker.working for worker in workers), 60, "work of all")
        for _ in range(5):
            for sleeper in rng.sample(workers, rng.randrange(1, 3)):
                sleeper.process.send_signal(signal.SIGSTOP)
                clock.faults[f"SIGSTOP of a {sleeper.role}"] += 1
            time.sleep(settings.kafka_session_timeout + rng.uniform(1, 6))
            for worker in workers:
                worker.process.send_signal(signal.SIGCONT)
            time.sleep(rng.uniform(0.5, 5))
    clock.close(fleet, mined_offline(events, settings), len(events))
    assert_judged_completely(settings)


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("outage", ["silent", "gone"])
def test_a_broker_that_cannot_be_reached_for_a_minute(own_broker, own_fleet, outage):
    """``silent``: it accepts connections and does not answer; ``gone``: killed, restarted later.

    After that it is restarted cleanly, too.
    """
    fleet, settings = own_fleet, own_fleet.settings
    clock = Clock(f"broker {outage} for {OUTAGE_SECONDS:.0f} s, then restarted")
    for role in ("judge", "mine", "judge", "mine"):
        fleet.start(role)
    with publishing(fleet, rate=120, patience=180) as events:
        eventually(lambda: len(pairs_of(settings)) > 50, 60, "first pairs", interval=1)
        if outage == "silent":
            os.kill(own_broker.child.pid, signal.SIGSTOP)
            time.sleep(OUTAGE_SECONDS)
            os.kill(own_broker.child.pid, signal.SIGCONT)
        else:
            own_broker.child.kill()
            time.sleep(OUTAGE_SECONDS)
            own_broker.start()
        clock.faults["outage"] += 1
        so_far = len(pairs_of(settings))
        eventually(lambda: len(pairs_of(settings)) > so_far, 120, "pairs after it", interval=1)
        own_broker.stop()
        own_broker.start()
        clock.faults["restart"] += 1
    clock.close(fleet, mined_offline(events, settings), len(events))
    assert_judged_completely(settings)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_slow_judge_that_fails_for_a_minute_and_changes_its_mind(settings, fleet, serve):
    """Judges are killed meanwhile; what counts is the log: a fold over it gives the pairs."""
    seed, rng = drawn()
    clock = Clock("slow judging server, down for 60 s, answers by chance", seed)
    failing, chance = [], random.Random(seed)

    def reply(body, number):
        if failing:
            return rng.choice([(503, {}), (429, {}), 2.0])
        time.sleep(0.2)
        return chance.choice(("RELEVANT", "NOT_RELEVANT"))

    server = serve(reply)
    judge = fleet.start("judge", **server.variables)
    fleet.start("mine")
    events = some_events(300)
    half = len(events) // 2
    publish(settings, events[:half])
    for phase in ("slow", "failing", "slow"):
        failing[:] = [True] if phase == "failing" else []
        began = time.monotonic()
        while time.monotonic() < began + (OUTAGE_SECONDS if failing else 8):
            time.sleep(rng.uniform(2, 8))
            state = "working" if judge.working else "waiting"
            judge.kill()
            clock.faults[f"kill -9 of a {state} judge"] += 1
            judge = fleet.start("judge", **server.variables)
        failing.clear()
    publish(settings, events[half:])
    ends = {event.trajectory_id for event in events}
    eventually(lambda: closed(settings) >= ends, 240, "end of every trajectory", interval=1)
    expected = judged_offline(settings)
    assert len(expected) > 300
    clock.close(fleet, expected, len(events))
    assert_judged_completely(settings)


def closed(settings):
    """The trajectories whose end is on judged-events."""
    messages = read(settings, Topics.of(settings).judged_events)
    return {message.key().decode() for message in messages if b'"type":"end"' in message.value()}
