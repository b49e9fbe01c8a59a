"""The queue to the broker: outages, full queues, waits for room, broken producers."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from retrail import (
    ClosedError,
    DeliveryError,
    Limits,
    LostEvent,
    Publisher,
    QueueFullError,
    Stats,
    Timeout,
)
from retrail import outbox as outbox_module
from retrail.outbox import Outbox
from retrail.wire import MAX_EVENT_BYTES, Record
from tests.retrail.conftest import FakeProducer, quick
from tests.waiting import eventually

NEVER = 10_000.0
"""Seconds that no test survives: a call that waits for room fails its test."""
RECORD = Record("t", 0, "browse", b"{}", [])


def full_queue(closed_port: str, **arguments: Any) -> Publisher:
    publisher = Publisher("a", bootstrap=closed_port, limits=Limits(events=3), **arguments)
    trajectory = publisher.trajectory("fills the queue")
    for number in range(3):
        trajectory.browse(f"d{number}")
    return publisher


# -- broker away --------------------------------------------------------------------------------


def test_a_broker_that_is_away_costs_the_agent_nothing_but_events(
    closed_port: str, caplog: pytest.LogCaptureFixture
) -> None:
    lost: list[LostEvent] = []
    publisher = Publisher(
        "a",
        bootstrap=closed_port,
        timeout=Timeout(block=NEVER, delivery=0.3),
        on_failure=lost.append,
        kafka=quick(),
    )
    with publisher.trajectory("t") as trajectory:
        for number in range(1000):
            trajectory.browse(f"d{number}")
    eventually(lambda: publisher.stats.failed == 1001, what="given up events")
    assert publisher.stats == Stats(published=1001, failed=1001)
    assert {event.seq for event in lost} == set(range(1001))
    assert "timed out" in lost[0].error
    ours = [r for r in caplog.records if r.name == "retrail"]
    assert 1 <= len([r for r in ours if "not delivered" in r.message]) <= 2
    publisher.close()


# -- full queue ---------------------------------------------------------------------------------


@pytest.fixture
def outbox(fake: type[FakeProducer]) -> Any:
    """Outboxes over a producer without a network, closed after the test."""
    made: list[Outbox] = []

    def make(*, block: float, raises: bool) -> Outbox:
        made.append(
            Outbox(
                {"bootstrap.servers": "none:1"},
                topic="t",
                limits=Limits(),
                timeout=Timeout(block=block),
                raises=raises,
                on_failure=None,
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.close(0)


def attempts(outbox: Outbox) -> int:
    """How often a call for room is tried while there is none: 1 means that it did not wait."""
    count = 0

    def attempt() -> bool:
        nonlocal count
        count += 1
        return False

    with pytest.raises(QueueFullError):
        outbox.publish(attempt)
    return count


def test_when_events_are_dropped_one_wait_is_the_last_until_a_delivery(
    outbox: Callable[..., Outbox],
) -> None:
    one = outbox(block=0.1, raises=False)
    assert attempts(one) > 1
    assert [attempts(one) for _ in range(10)] == [1] * 10
    assert one.enqueue(RECORD)
    eventually(lambda: one.stats().delivered == 1, what="delivery")
    assert attempts(one) > 1


def test_when_errors_are_raised_every_call_waits_unless_it_must_not(
    outbox: Callable[..., Outbox],
) -> None:
    patient, hasty = outbox(block=0.1, raises=True), outbox(block=0.0, raises=True)
    assert all(attempts(patient) > 1 for _ in range(2))
    assert [attempts(hasty) for _ in range(2)] == [1, 1]


def test_a_thread_that_runs_an_event_loop_never_waits(outbox: Callable[..., Outbox]) -> None:
    one = outbox(block=NEVER, raises=True)

    async def agent() -> int:
        return attempts(one)

    assert asyncio.run(agent()) == 1


def test_a_full_queue_drops(closed_port: str) -> None:
    publisher = full_queue(closed_port, timeout=Timeout(block=0.1))
    for _ in range(11):
        publisher.trajectory().browse("late")
    assert (publisher.stats.published, publisher.stats.dropped) == (3, 11)
    publisher.close(0)


def test_a_full_queue_raises(closed_port: str) -> None:
    publisher = full_queue(closed_port, timeout=Timeout(block=0.1), on_error="raise")
    for _ in range(2):
        with pytest.raises(
            QueueFullError, match=rf"3 events wait.*{closed_port}.*topics create"
        ) as caught:
            publisher.trajectory().browse("late")
        assert caught.value.waiting == 3
    with pytest.raises(DeliveryError):
        publisher.close(0)


def test_bytes_fill_a_queue_too_but_one_event_always_fits(closed_port: str) -> None:
    publisher = Publisher(
        "a",
        bootstrap=closed_port,
        limits=Limits(bytes=MAX_EVENT_BYTES),
        timeout=Timeout(block=0),
    )
    publisher.trajectory().answer("x" * (MAX_EVENT_BYTES - 2000))
    publisher.trajectory().answer("x" * 2000)
    assert (publisher.stats.published, publisher.stats.dropped) == (1, 1)
    publisher.close(0)


def test_a_librdkafka_property_bounds_the_queue_too(closed_port: str) -> None:
    publisher = Publisher(
        "a",
        bootstrap=closed_port,
        on_error="raise",
        kafka={"queue.buffering.max.messages": 1},
    )
    publisher.trajectory().browse("d")
    with pytest.raises(QueueFullError):
        publisher.trajectory().browse("d")
    assert publisher.stats.published == publisher.stats.waiting == 1
    with pytest.raises(DeliveryError):
        publisher.close(0)


def test_room_wakes_the_caller_that_waits(closed_port: str) -> None:
    publisher = full_queue(
        closed_port, timeout=Timeout(block=NEVER, delivery=0.5), on_error="raise", kafka=quick()
    )
    publisher.trajectory().browse("waits")
    assert publisher.stats.published == 4
    with pytest.raises(DeliveryError):
        publisher.close(0)


def test_closing_wakes_the_caller_that_waits(closed_port: str) -> None:
    publisher = full_queue(closed_port, timeout=Timeout(block=NEVER), on_error="raise")
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            publisher.trajectory().browse("waits")
        except ClosedError as error:
            raised.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    with pytest.raises(DeliveryError):
        publisher.close(0)
    waiter.join(30)
    assert len(raised) == 1


def test_an_event_loop_never_waits(closed_port: str) -> None:
    publisher = full_queue(closed_port, timeout=Timeout(block=NEVER))

    async def agent() -> None:
        async with publisher.trajectory() as trajectory:
            trajectory.search("q", ["a"])

    asyncio.run(agent())
    assert publisher.stats.dropped == 1
    publisher.close(0)


def test_a_callback_may_publish_fail_and_flush(
    closed_port: str, caplog: pytest.LogCaptureFixture
) -> None:
    publisher: Publisher
    broken = True

    def on_failure(event: LostEvent) -> None:
        if not broken:
            return
        publisher.trajectory("from the callback").browse("d") if event.seq == 0 else None
        publisher.flush(NEVER)
        raise RuntimeError("the agent's callback is broken")

    publisher = full_queue(
        closed_port,
        timeout=Timeout(block=NEVER, delivery=0.3),
        on_failure=on_failure,
        kafka=quick(),
    )
    eventually(lambda: publisher.stats.failed >= 3, what="given up events")
    assert "on_failure failed" in caplog.text
    broken = False
    publisher.close(0)
    assert publisher.stats.waiting == 0


# -- broken and closed producers ----------------------------------------------------------------


def test_a_producer_is_not_made_again_after_the_end(fake: type[FakeProducer]) -> None:
    publisher = Publisher("a", on_error="raise")
    publisher.close()
    with pytest.raises(ClosedError):
        publisher.trajectory().browse("d")
    assert len(fake.made) == 1
    assert not outbox_module._open


def test_a_producer_with_a_fatal_error_is_replaced(fake: type[FakeProducer]) -> None:
    publisher = Publisher("a")
    # A lost sequence, which takes a broker that forgets.
    fake.made[0].error = KafkaException(KafkaError(KafkaError._FATAL, "lost", fatal=True))
    publisher.trajectory("t").browse("d")
    assert publisher.flush(30) == 0
    assert publisher.stats == Stats(published=1, delivered=1)
    assert [len(producer.records) for producer in fake.made] == [0, 1]
    publisher.close(0)
