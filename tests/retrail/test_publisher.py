"""What a publisher takes, reports and raises."""

import asyncio
import json
import threading
import time
from typing import Any

import pytest
from confluent_kafka import Producer

from retrail import (
    ClosedError,
    ConfigurationError,
    DeliveryError,
    InvalidEventError,
    Limits,
    LostEvent,
    Publisher,
    QueueFullError,
    Stats,
    Timeout,
)
from tests.retrail.conftest import Cluster, quick
from tests.waiting import eventually


@pytest.mark.parametrize(
    "arguments",
    [
        {"agent": ""},
        {"agent": "x" * 129},
        {"agent": "a", "model": None},
        {"agent": "a", "on_error": "ignore"},
        {"agent": "a", "reasoning_text": "hide"},
        {"agent": "a", "retriever_version": 0},
        {"agent": "a", "kafka": {"partitioner": "random"}},
        {"agent": "a", "kafka": {"no.such.property": 1}},
        {"agent": "a", "kafka": {"security.protocol": "nonsense"}},
        {"agent": "a", "kafka": {"message.timeout.ms": "soon"}},
    ],
)
def test_a_publisher_that_cannot_work_is_refused_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Publisher(**arguments)


def test_its_repr_holds_no_password(closed_port: str) -> None:
    publisher = Publisher(
        "a", bootstrap=closed_port, kafka={"sasl.password": "s3cret", "sasl.username": "me"}
    )
    assert repr(publisher) == (
        f"Publisher(agent='a', topic='trajectory-events', at='{closed_port}')"
    )
    publisher.close()


def test_outcomes_go_to_a_topic_of_their_own(mock_cluster: Cluster, prefix: str) -> None:
    admin = Producer({"bootstrap.servers": mock_cluster.bootstrap})
    admin.list_topics(f"{prefix}outcomes", timeout=10)
    with Publisher("me", bootstrap=mock_cluster.bootstrap, topic_prefix=prefix) as publisher:
        publisher.outcome("task-17", "incorrect", source="user")
        publisher.outcome("task-17", "correct")
        assert publisher.flush(10) == 0
        assert publisher.stats == Stats(published=2, delivered=2)
    messages = mock_cluster.messages(f"{prefix}outcomes", 2)
    reports = [json.loads(message.value() or b"") for message in messages]
    assert [(r["outcome"], r["source"]) for r in reports] == [
        ("incorrect", "user"),
        ("correct", "me"),
    ]
    assert {message.key() for message in messages} == {b"task-17"}


def test_an_outcome_that_cannot_be_published_is_counted_or_raised(closed_port: str) -> None:
    lost: list[LostEvent] = []
    publisher = Publisher(
        "a", bootstrap=closed_port, on_failure=lost.append, timeout=Timeout(close=0.1)
    )
    publisher.outcome("", "correct")
    publisher.outcome("t", "perhaps")  # type: ignore[arg-type]
    publisher.close()
    publisher.outcome("t", "correct")
    assert publisher.stats == Stats(dropped=3)
    assert [(event.type, event.seq) for event in lost] == [("outcome", None)] * 3
    strict = Publisher("a", bootstrap=closed_port, on_error="raise", timeout=Timeout(close=0.1))
    with pytest.raises(InvalidEventError, match="outcome must be correct or incorrect"):
        strict.outcome("t", "unknown")  # type: ignore[arg-type]
    strict.close()


def test_outcomes_wait_for_room_as_events_do(closed_port: str) -> None:
    publisher = Publisher(
        "a",
        bootstrap=closed_port,
        on_error="raise",
        limits=Limits(events=1),
        timeout=Timeout(block=0.1, close=0.1),
    )
    publisher.outcome("t", "correct")
    started = time.monotonic()
    with pytest.raises(QueueFullError) as caught:
        publisher.outcome("t", "incorrect")
    assert (caught.value.trajectory_id, caught.value.event) == ("t", "outcome")
    assert caught.value.waiting == 1
    assert time.monotonic() - started >= 0.1
    with pytest.raises(DeliveryError):
        publisher.close()


def test_an_event_loop_goes_on_while_a_publisher_closes(closed_port: str) -> None:
    async def agent() -> int:
        ticks = 0
        closing = asyncio.create_task(leave())
        while not closing.done():
            await asyncio.sleep(0.01)
            ticks += 1
        await closing
        return ticks

    async def leave() -> None:
        async with Publisher("a", bootstrap=closed_port, timeout=Timeout(close=0.5)) as publisher:
            publisher.trajectory().browse("d")
        await publisher.aclose()
        assert publisher.stats.failed == 1

    assert asyncio.run(agent()) > 5


def test_the_blocks_own_error_comes_before_what_was_not_delivered(closed_port: str) -> None:
    publisher = Publisher("a", bootstrap=closed_port, on_error="raise", timeout=Timeout(close=0.1))
    publisher.trajectory().browse("d")
    with pytest.raises(ZeroDivisionError), publisher:
        raise ZeroDivisionError


def test_flush_and_close_raise_what_never_arrived(closed_port: str) -> None:
    publisher = Publisher(
        "a", bootstrap=closed_port, timeout=Timeout(delivery=0.3), on_error="raise", kafka=quick()
    )
    publisher.trajectory().browse("d")
    with pytest.raises(DeliveryError, match=f"1 events were not delivered to {closed_port}"):
        publisher.flush(10)
    assert publisher.flush(10) == 0
    publisher.trajectory().browse("d")
    with pytest.raises(DeliveryError) as caught:
        publisher.close(0.1)
    assert caught.value.count == 1
    with pytest.raises(ZeroDivisionError), publisher:
        raise ZeroDivisionError


def test_a_closed_publisher_raises_if_asked_to(closed_port: str) -> None:
    publisher = Publisher("a", bootstrap=closed_port, on_error="raise")
    publisher.close()
    with pytest.raises(ClosedError):
        publisher.trajectory().browse("d")


def test_closing_gives_up_what_is_left_and_reports_it(closed_port: str) -> None:
    lost: list[LostEvent] = []
    publisher = Publisher(
        "a", bootstrap=closed_port, on_failure=lost.append, timeout=Timeout(close=0.2)
    )
    publisher.trajectory().browse("d")
    assert publisher.flush(0) == 1
    publisher.close()
    publisher.close()
    assert publisher.stats == Stats(published=1, failed=1)
    assert "closed before the broker took it" in lost[0].error
    publisher.trajectory().browse("d")
    assert publisher.stats.dropped == 1
    eventually(
        lambda: "retrail-delivery" not in {thread.name for thread in threading.enumerate()},
        what="end of the delivery thread",
    )
