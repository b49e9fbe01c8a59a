"""Where a worker starts, what it takes for lost, and what it does if its topic is another one."""

import asyncio
import time
from types import SimpleNamespace

from schemas.errors import BrokerUnavailableError, RestartRequiredError, TopicMismatchError
from streams import metrics
from streams.loop import worker as module
from streams.loop.checkpoint import Committed
from streams.loop.health import State
from streams.loop.partition import Hole
from streams.loop.worker import Worker
from tests.streams.fakes import LOG, FakeRecord, Source

PARTITIONS = 5


class Notes:
    """A task that notes what it is given."""

    has_capacity = recovered = True
    refusing = False

    def __init__(self, assignment):
        self.assignment = assignment
        self.read = []
        self.finished = False
        self.next = assignment.start.offset

    def process(self, records, end):
        self.read += [record.offset for record in records]
        self.next = end

    def hole(self):
        self.read.append("hole")

    async def commit_point(self):
        return Committed(self.next, "state")

    async def finish(self, deadline):
        self.finished = True
        return Committed(self.next, "state")

    def caught_up(self, as_of): ...


class World:
    """A worker over a source in memory."""

    def __init__(self, **commits):
        self.tasks = []
        self.source = Source(end=1_000)
        self.source.commits = {int(name[1:]): commit for name, commit in commits.items()}

    def make(self, assignment):
        self.tasks.append(Notes(assignment))
        return self.tasks[-1]

    async def start(self, partitions=(0,)):
        self.worker = Worker("events", self.make, PARTITIONS)
        self.worker.app = self.source
        await self.worker.assigned(frozenset(partitions))
        return self.worker

    async def deliver(self, *offsets):
        fetched = [at if isinstance(at, Hole) else FakeRecord(at, b"") for at in offsets]
        await self.worker.deliver(0, fetched)


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario, 20))


def test_markers_and_aborted_records_cost_no_seek_and_are_no_hole():
    world = World()

    async def scenario():
        worker = await world.start()
        await world.deliver(0, 1, Hole(2, 3), 3, Hole(4, 9))
        await world.deliver(Hole(9, 10))
        await world.deliver(10)
        return worker.positions()

    assert run(scenario()) == {0: 11}
    assert world.tasks[0].read == [0, 1, 3, 10]
    assert world.source.sought == []


def test_a_marker_after_records_that_were_skipped_hides_nothing():
    world = World()

    async def scenario():
        await world.start()
        await world.deliver(0, 1)
        await world.deliver(Hole(5, 6), 6)
        await world.deliver(2, 3, 4, Hole(5, 6), 6)

    run(scenario())
    assert world.source.sought == [(0, 2)]
    assert world.tasks[0].read == [0, 1, 2, 3, 4, 6]


def test_records_that_are_gone_are_a_hole_for_the_task():
    world = World()

    async def scenario():
        await world.start()
        await world.deliver(0)
        await world.deliver(4)
        await world.deliver(4)

    run(scenario())
    assert world.tasks[0].read == [0, "hole", 4]


def test_what_cannot_be_decoded_ends_the_worker_with_its_place():
    world = World()

    async def scenario():
        worker = await world.start()
        await world.deliver(0, Hole(1, 5, "Invalid CRC"))
        return await worker.failure, worker.positions()

    failure, positions = run(scenario())
    assert isinstance(failure, RestartRequiredError)
    assert "`retrail dlq skip events 0 1`" in str(failure)
    assert (failure.topic, failure.partition, positions) == ("events", 0, {0: 1})
    assert world.tasks[0].read == [0]


def test_an_operator_passes_over_it_and_no_further_than_the_log_goes():
    world = World()
    world.source.passed_over = {3}
    world.source.end = 7

    async def scenario():
        await world.start()
        await world.deliver(0, Hole(1, 5, "Invalid CRC"))
        await world.deliver(5)
        world.source.passed_over = {6}
        await world.deliver(Hole(6, 10**6, "Invalid CRC"))

    run(scenario())
    assert world.tasks[0].read == [0, "hole", 5, "hole"]
    assert world.source.sought == [(0, 5), (0, 7)]


def test_a_commit_counts_for_the_log_that_it_was_made_for():
    world = World(
        p0=Committed(7, "state", LOG),
        p1=Committed(7, "state", "another topic"),
        p2=Committed(7),
        p4=Committed(7, "state", f"{LOG}.17"),
    )
    run(world.start(range(5)))
    starts = {task.assignment.partition: task.assignment for task in world.tasks}
    assert {place: found.start for place, found in starts.items()} == {
        0: Committed(7, "state", LOG),
        1: Committed(0),
        2: Committed(7),
        3: Committed(0),
        4: Committed(7, "state", f"{LOG}.17"),
    }
    assert [starts[place].log_id for place in range(5)] == [LOG] * 4 + [f"{LOG}.17"]


def test_another_topic_of_that_name_is_read_from_its_beginning(monkeypatch):
    monkeypatch.setattr(module, "IDENTIFY_SECONDS", 0.01)
    world = World(p0=Committed(40, "state", LOG))

    async def scenario():
        worker = await world.start()
        await world.deliver(40, 41)
        watching = asyncio.create_task(worker.keep_identifying())
        world.source.id = "log-2"
        await world.source.has_sought.wait()
        watching.cancel()
        await world.deliver(0, 1)
        await worker.revoked()

    run(scenario())
    old, new = world.tasks
    assert (old.finished, old.read, new.read) == (True, [40, 41], [0, 1])
    assert (new.assignment.log_id, new.assignment.start) == ("log-2", Committed(0))
    assert world.source.sought == [(0, 0)]
    assert world.source.commits == {0: Committed(2, "state", "log-2")}


def test_offsets_that_come_again_are_another_log():
    """A log that was cut behind the worker's position, under the same topic id."""
    world = World(p0=Committed(40, "state", LOG))

    async def scenario():
        await world.start()
        await world.deliver(0)
        await world.deliver(0)
        await world.deliver(0, 1)

    run(scenario())
    _, new = world.tasks
    assert new.read == [0, 1]
    assert new.assignment.log_id.startswith(f"{LOG}.")


def test_offsets_that_come_again_of_another_topic_are_that_one():
    world = World(p0=Committed(40, "state", LOG))

    async def scenario():
        await world.start()
        world.source.id = "log-2"
        await world.deliver(0)
        await world.deliver(0)

    run(scenario())
    assert [task.assignment.log_id for task in world.tasks] == [LOG, "log-2"]


def test_a_topic_that_is_gone_shows_until_it_is_back():
    world = World()

    async def scenario():
        worker, seen = await world.start(), []
        for answer in (TopicMismatchError("no topic"), BrokerUnavailableError("away"), LOG):
            world.source.id = answer
            await worker._identify_again()
            worker._observe()
            seen.append(worker.health())
        return seen

    missing = State.TOPIC_MISSING
    assert run(scenario()) == [missing, missing, State.WORKING]
    assert len(world.tasks) == 1


def test_a_worker_without_partitions_is_not_ready():
    world = World()

    async def scenario():
        worker = await world.start(())
        return worker.health()

    assert run(scenario()) == State.UNASSIGNED


def test_a_partition_that_is_added_ends_the_worker():
    """Partition counts are never changed in place: a trajectory would be on two partitions."""
    world = World()

    async def scenario():
        worker = await world.start(range(PARTITIONS + 1))
        return await worker.failure

    failure = run(scenario())
    assert isinstance(failure, TopicMismatchError)
    assert failure.topic == "events"
    assert "RETRAIL_TOPIC_PREFIX" in str(failure)
    assert world.tasks == []


def test_a_transaction_that_stays_open_shows_its_age(monkeypatch):
    """What stands behind it is on the log but cannot be read: no lag, and no stall."""
    now, gauge = 1_000.0, metrics.OPEN_TRANSACTION.labels("events", 0)
    clock = SimpleNamespace(monotonic=lambda: now, time=time.time)
    monkeypatch.setattr(module, "time", clock)
    world = World()

    async def ends_in(seconds, stable, high):
        nonlocal now
        now += seconds
        world.source.end, world.source.high = stable, high
        assert await world.worker._consumer_answers()
        await world.worker._look(dict(world.worker._slots), 0)
        world.worker._observe()
        return gauge._value.get(), world.worker.health()

    async def scenario():
        await world.start()
        await world.deliver(*range(10))
        return [
            await ends_in(1, 10, 10),
            await ends_in(30, 10, 25),
            await ends_in(61, 10, 30),
            await ends_in(1, 30, 40),
            await ends_in(1, 40, 40),
        ]

    ages, healths = zip(*run(scenario()), strict=True)
    assert ages == (0, 30, 91, 0, 0)
    assert set(healths[:3]) == {State.WORKING}


def test_a_transaction_that_opens_the_log_is_as_old_as_the_worker_has_seen_it(monkeypatch):
    """The last stable offset is 0 from the start: it showed the uptime of the machine."""
    now = 1_000.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now, time=time.time))
    world = World()

    async def scenario():
        nonlocal now
        await world.start()
        world.source.end, world.source.high = 0, 7
        ages = []
        for seconds in (0, 61):
            now += seconds
            await world.worker._look(dict(world.worker._slots), 0)
            ages.append(metrics.OPEN_TRANSACTION.labels("events", 0)._value.get())
        return ages

    assert run(scenario()) == [0, 61]
