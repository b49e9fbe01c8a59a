"""Worker processes report liveness and readiness, and exit when they stall."""

import re
import threading

import pytest

from tests.streams.topics import assert_same_pairs, pairs_of, publish
from tests.streams.trajectories import interleaved, mined_offline, trajectory
from tests.waiting import eventually

NOTHING_DELIVERED = """
from streams.loop import health
from streams.loop.worker import Worker
health.STALL_SECONDS = 2.0
async def lose(self, partition, records):
    pass
Worker.deliver = lose
"""

SLOW_TO_RECOVER = """
import time
from streams.mine.worker import MineTask
process = MineTask.process
def slowly(self, records, end):
    if not self.recovered:
        time.sleep(0.02 * len(records))
    process(self, records, end)
MineTask.process = slowly
from streams.loop import worker as loop
loop.CHUNK = 10
"""


STUCK = """
import asyncio, time
from streams.loop import health, worker as loops
health.STALL_SECONDS = 2.0
loops.ANSWER_SECONDS = 1.0
assigned = loops.Worker.assigned
async def and_then(self, partitions):
    await assigned(self, partitions)
    loop = self.app.consumer_thread.thread_loop
    {what}
loops.Worker.assigned = and_then
"""


def test_a_worker_is_ready_once_it_has_folded_again(settings, fleet):
    """The miner is killed while trajectories are open, so its successor has much to read again."""
    trajectories = [trajectory(f"t{number}") for number in range(30)]
    closed = interleaved(trajectories[:15])
    opened = interleaved(events[:-1] for events in trajectories[15:])
    expected = mined_offline(interleaved(trajectories), settings)
    publish(settings, opened + closed)
    judge, first = fleet.start("judge"), fleet.start("mine")
    eventually(lambda: judge.ports and judge.page("/readyz")[0] == 200, 30, "ready judge")
    eventually(lambda: len(pairs_of(settings)) > 20, 30, "pairs of closed trajectories")
    assert first.stop() == 0
    second = fleet.start("mine", SLOW_TO_RECOVER)
    states = set()

    def ready():
        if second.ports:
            states.add(second.page("/readyz"))
        return (200, "working") in states

    eventually(ready, 40, "ready miner", interval=0.05)
    assert (503, "reading again what open trajectories need") in states
    assert second.page("/healthz") == (200, "working")
    publish(settings, [events[-1] for events in trajectories[15:]])
    fleet.until_pairs(expected)
    assert assert_same_pairs(settings, expected) == 0


def test_a_worker_to_which_nothing_comes_leaves_for_a_restart(settings, fleet):
    publish(settings, trajectory("lonely"))
    judge = fleet.start("judge", NOTHING_DELIVERED)
    assert judge.wait(40) == 75
    assert "although" in judge.log
    assert "ended: No record of" in judge.log


@pytest.mark.parametrize(
    ("what", "logged"),
    [
        ("time.sleep(1_000)", "the event loop is blocked; exiting"),
        # Whichever of the two notices first.
        (
            "loop.call_soon_threadsafe(time.sleep, 1_000)",
            "thread has not answered for|the event loop is blocked; exiting",
        ),
        ("loop.call_soon_threadsafe(loop.stop)", "thread has ended"),
    ],
    ids=["loop blocked", "consumer thread blocked", "consumer thread dead"],
)
def test_a_worker_of_which_a_part_is_stuck_leaves_for_a_restart(settings, fleet, what, logged):
    judge = fleet.start("judge", STUCK.format(what=what))
    assert judge.wait(40) == 75, judge.log
    assert re.search(logged, judge.log)


@pytest.mark.parametrize("silent", [False, True], ids=["away", "silent"])
def test_a_judge_without_its_server_is_not_ready(settings, fleet, serve, silent):
    answers = threading.Event()
    server = serve(lambda body, number: "RELEVANT" if answers.is_set() else 600.0)
    if not silent:
        server.close()
    publish(settings, trajectory("t"))
    judge = fleet.start("judge", **server.variables)
    waiting = "waiting for judge_server"
    eventually(lambda: judge.ports and judge.page("/readyz") == (503, waiting), 30, "wait")
    assert judge.page("/healthz") == (200, waiting)
    answers.set()
    if not silent:
        serve(lambda body, number: "RELEVANT", server.server.server_port)
    eventually(lambda: judge.page("/readyz") == (200, "working"), 30, "server")
