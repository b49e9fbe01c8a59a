"""Outputs in order, acknowledged, none after a failure; which offsets are committed, and when."""

import asyncio
import itertools

import pytest

from retrail_runtime.kafka import Outgoing
from retrail_runtime.retry import Deadline
from streams.loop import checkpoint as module
from streams.loop.checkpoint import Checkpoint, Committed, Outbox
from streams.loop.worker import Worker
from tests.streams.fakes import LOG, FakeRecord, Source


class Group:
    """Keeps what is committed; each commit takes ``seconds``."""

    def __init__(self, ours=True, seconds=0.0):
        self.ours = ours
        self.seconds = seconds
        self.commits = []

    async def commit(self, offsets):
        await asyncio.sleep(self.seconds)
        self.commits.append(dict(offsets))
        return self.ours


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario, 20))


def test_only_what_changed_is_committed():
    async def scenario():
        group = Group()
        checkpoint = Checkpoint(group.commit)
        checkpoint.start({0: Committed(5, "m"), 1: Committed(7)})
        checkpoint.store(0, Committed(5, "m"))
        await checkpoint.commit(Deadline(5))
        checkpoint.store(0, Committed(5, "n"))
        checkpoint.store(1, Committed(9))
        await checkpoint.commit(Deadline(5))
        checkpoint.store(1, Committed(9))
        await checkpoint.commit(Deadline(5))
        return group.commits

    assert run(scenario()) == [{0: Committed(5, "n"), 1: Committed(9)}]


def test_a_partition_that_is_not_owned_is_not_committed():
    async def scenario():
        group = Group()
        checkpoint = Checkpoint(group.commit)
        checkpoint.start({0: Committed(5)})
        checkpoint.store(0, Committed(6))
        checkpoint.clear()
        checkpoint.store(0, Committed(7))
        await checkpoint.commit(Deadline(5))
        return group.commits

    assert run(scenario()) == []


@pytest.mark.parametrize("lost", ["revoked", "silent"])
def test_what_the_broker_did_not_take_is_stored_again(lost):
    async def scenario():
        group = Group(ours=lost != "revoked", seconds=0.0 if lost == "revoked" else 1.0)
        checkpoint = Checkpoint(group.commit)
        checkpoint.start({0: Committed(5)})
        checkpoint.store(0, Committed(6))
        await checkpoint.commit(Deadline(0.01))
        group.ours, group.seconds = True, 0.0
        checkpoint.store(0, Committed(6))
        await checkpoint.commit(Deadline(5))
        return group.commits[-1]

    assert run(scenario()) == {0: Committed(6)}


def test_a_log_that_starts_again_forgets_the_commit_before():
    async def scenario():
        group = Group()
        checkpoint = Checkpoint(group.commit)
        checkpoint.start({0: Committed(700)})
        checkpoint.store(0, Committed(705))
        checkpoint.start({0: Committed(0)})
        await checkpoint.commit(Deadline(5))
        checkpoint.store(0, Committed(3))
        await checkpoint.commit(Deadline(5))
        return group.commits

    assert run(scenario()) == [{0: Committed(3)}]


def test_many_records_make_a_checkpoint_due_at_once(monkeypatch):
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 60)

    async def scenario():
        checkpoint = Checkpoint(Group().commit)
        waiting = asyncio.create_task(checkpoint.expired())
        checkpoint.processed(module.CHECKPOINT_RECORDS - 1)
        await asyncio.sleep(0)
        assert not waiting.done()
        checkpoint.processed(1)
        await waiting

    run(scenario())


class Stuck:
    """A task whose outputs are never acknowledged."""

    has_capacity = recovered = True
    refusing = False

    async def commit_point(self):
        await asyncio.get_running_loop().create_future()

    async def finish(self, deadline):
        await asyncio.sleep(deadline.remaining)

    def process(self, records, end): ...
    def hole(self): ...
    def caught_up(self, as_of): ...


class Done(Stuck):
    """A task with nothing to wait for."""

    def __init__(self):
        self.read = 0

    async def finish(self, deadline):
        return Committed(self.read)

    def process(self, records, end):
        self.read = end


@pytest.mark.parametrize("broker", ["answers", "silent"])
def test_one_deadline_bounds_a_revocation(monkeypatch, broker):
    """A partition whose outputs are stuck leaves the others time for their commit."""
    monkeypatch.setattr("streams.loop.worker.HAND_OVER_SECONDS", 0.6)
    monkeypatch.setattr("streams.loop.worker.COMMIT_SECONDS", 0.3)

    async def scenario():
        group = Group(seconds=0.0 if broker == "answers" else 60)
        worker = Worker("events", lambda assigned: Done() if assigned.partition else Stuck(), 2)
        worker.app = Source(end=3)
        worker.app.commit_offsets = group.commit
        await worker.assigned(frozenset([0, 1]))
        await worker.deliver(1, [FakeRecord(offset, b"") for offset in range(3)])
        loop = asyncio.get_running_loop()
        began = loop.time()
        await worker.revoked()
        return loop.time() - began, group.commits

    seconds, commits = run(scenario())
    assert commits == ([{1: Committed(3, "", LOG)}] if broker == "answers" else [])
    # Twice the deadline would be 1.2 s.
    assert seconds < 1.1


class Wire:
    """A channel with batches of at most three records, acknowledged by hand."""

    def __init__(self):
        self.batches = []
        self.answers = []

    async def send(self, records):
        self.batches.append([record.value for record in itertools.islice(records, 3)])
        self.answers.append(asyncio.get_running_loop().create_future())
        await self.answers[-1]
        return len(self.batches[-1])


def text(value):
    return Outgoing(None, value)


async def turns(count=20):
    """Let everything run that can run."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def failures():
    return []


def test_one_batch_at_a_time_and_the_rest_fills_up_meanwhile(failures):
    async def scenario():
        wire = Wire()
        box = Outbox(wire, failures.append)
        box.put(1, text(b"a"), 1)
        await turns()
        for position, value in enumerate((b"b", b"c", b"d", b"e"), 2):
            box.put(position, text(value), 1)
        await turns()
        assert wire.batches == [[b"a"]]
        assert box.oldest == 1
        wire.answers[0].set_result(None)
        await turns()
        assert wire.batches == [[b"a"], [b"b", b"c", b"d"]]
        assert box.oldest == 2
        wire.answers[1].set_result(None)
        await turns()
        wire.answers[2].set_result(None)
        await turns()
        assert wire.batches[2] == [b"e"]
        assert box.oldest is None

    run(scenario())
    assert not failures


def test_a_late_output_holds_back_those_behind_it(failures):
    async def scenario():
        wire = Wire()
        box = Outbox(wire, failures.append)
        late = asyncio.get_running_loop().create_future()
        box.put(1, text(b"a"), 1)
        box.put(2, late, 1)
        box.put(3, text(b"c"), 1)
        await turns()
        wire.answers[0].set_result(None)
        await turns()
        assert wire.batches == [[b"a"]]
        assert box.oldest == 2
        late.set_result(text(b"b"))
        await turns()
        assert wire.batches[1] == [b"b", b"c"]

    run(scenario())


def test_after_a_failed_send_nothing_more_is_sent(failures):
    async def scenario():
        wire = Wire()
        box = Outbox(wire, failures.append)
        for position in range(7):
            box.put(position, text(b"%d" % position), 1)
        await turns()
        wire.answers[0].set_exception(ConnectionError("refused"))
        await turns()
        box.put(7, text(b"7"), 1)
        await turns()
        assert len(wire.batches) == 1
        assert box.oldest == 0

    run(scenario())
    assert [str(failure) for failure in failures] == ["refused"]


def test_acknowledged_waits_for_what_was_put_before(failures):
    async def scenario():
        wire = Wire()
        box = Outbox(wire, failures.append)
        box.put(1, text(b"a"), 1)
        waiting = asyncio.create_task(box.acknowledged())
        await turns()
        box.put(2, text(b"b"), 1)
        assert not waiting.done()
        wire.answers[0].set_result(None)
        await turns()
        assert waiting.done()
        assert box.oldest == 2

    run(scenario())


@pytest.mark.parametrize(("records", "size"), [(2, 1_000), (1_000, 20)])
def test_capacity_ends_by_count_and_by_weight(failures, records, size):
    async def scenario():
        wire = Wire()
        box = Outbox(wire, failures.append, max_records=records, max_bytes=size)
        assert box.has_capacity
        box.put(1, text(b"a"), 10)
        assert box.has_capacity
        box.put(2, text(b"b"), 10)
        assert not box.has_capacity
        await turns()
        wire.answers[0].set_result(None)
        await turns()
        assert box.has_capacity

    run(scenario())


def test_closing_waits_for_the_batch_under_way_and_drops_the_rest(failures):
    async def scenario():
        wire = Wire()
        box = Outbox(wire, failures.append)
        late = asyncio.get_running_loop().create_future()
        box.put(1, text(b"a"), 1)
        await turns()
        box.put(2, late, 1)
        box.put(3, text(b"c"), 1)
        closing = asyncio.create_task(box.close(Deadline(5)))
        await turns()
        assert not closing.done()
        wire.answers[0].set_result(None)
        await closing
        assert late.cancelled()
        assert wire.batches == [[b"a"]]
        assert box.oldest == 2

    run(scenario())
    assert not failures


def test_closing_waits_no_longer_than_its_deadline(failures):
    async def scenario():
        wire = Wire()
        box = Outbox(wire, failures.append)
        box.put(1, text(b"a"), 1)
        await turns()
        await box.close(Deadline(0.01))
        assert box.oldest == 1

    run(scenario())


def test_an_output_that_cannot_be_made_is_a_failure(failures):
    async def scenario():
        wire = Wire()
        box = Outbox(wire, failures.append)
        broken = asyncio.get_running_loop().create_future()
        broken.set_exception(ValueError("no answer"))
        box.put(1, broken, 1)
        await turns()
        assert not wire.batches

    run(scenario())
    assert [str(failure) for failure in failures] == ["no answer"]
