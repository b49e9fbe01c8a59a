"""Which offsets are committed, and how long a revocation may take."""

import asyncio

import pytest

from streams.loop import checkpoint as module
from streams.loop.checkpoint import Checkpoint, Deadline
from streams.loop.records import Committed
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


def test_an_earlier_deadline_leaves_time_to_what_comes_after():
    whole = Deadline(60)
    assert 49 < whole.earlier(10).remaining <= 50
    assert whole.earlier(70).remaining == 0


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
        worker = Worker("events", lambda assigned: Done() if assigned.partition else Stuck())
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
