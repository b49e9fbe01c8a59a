"""The queue between a worker and Kafka: order, acknowledgement, and nothing after a failure."""

import asyncio
import itertools

import pytest

from retrail_runtime.kafka import Outgoing
from streams.loop.checkpoint import Deadline
from streams.loop.outbox import Outbox


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


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario, 10))


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
