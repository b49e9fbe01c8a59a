"""The publisher never stands in the agent's way: outages, full queues, forks, exits."""

import asyncio
import inspect
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from retrail import (
    ConfigurationError,
    DeliveryError,
    InvalidEventError,
    LostEvent,
    Publisher,
    PublisherClosedError,
    QueueFullError,
    Stats,
    Trajectory,
)
from retrail import outbox as outbox_module
from tests.retrail.conftest import Cluster
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]


def run_agent(
    script: str, *arguments: str, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run an agent of its own, as users do."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


# -- broker away --------------------------------------------------------------------------------


def test_a_broker_that_is_away_costs_the_agent_nothing_but_events(
    closed_port: str, caplog: pytest.LogCaptureFixture
) -> None:
    lost: list[LostEvent] = []
    publisher = Publisher(
        "a", bootstrap=closed_port, delivery_seconds=0.3, on_failure=lost.append, kafka=quick()
    )
    started = time.monotonic()
    with publisher.trajectory("t") as trajectory:
        for number in range(1000):
            trajectory.browse(f"d{number}")
    assert time.monotonic() - started < 1.0
    eventually(lambda: publisher.stats.failed == 1001, what="given up events")
    assert publisher.stats == Stats(published=1001, failed=1001)
    assert {event.seq for event in lost} == set(range(1001))
    assert "timed out" in lost[0].error
    ours = [r for r in caplog.records if r.name == "retrail"]
    assert 1 <= len([r for r in ours if "not delivered" in r.message]) <= 2
    publisher.close()


def test_raise_tells_at_flush_and_close_what_never_arrived(closed_port: str) -> None:
    publisher = Publisher(
        "a", bootstrap=closed_port, delivery_seconds=0.3, on_error="raise", kafka=quick()
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


def test_the_blocks_own_error_comes_before_what_was_not_delivered(closed_port: str) -> None:
    publisher = Publisher("a", bootstrap=closed_port, on_error="raise", close_seconds=0.1)
    publisher.trajectory().browse("d")
    with pytest.raises(ZeroDivisionError), publisher:
        raise ZeroDivisionError


def test_closing_gives_up_what_is_left_and_says_so(closed_port: str) -> None:
    lost: list[LostEvent] = []
    publisher = Publisher("a", bootstrap=closed_port, on_failure=lost.append, close_seconds=0.2)
    publisher.trajectory().browse("d")
    assert publisher.flush(0) == 1
    started = time.monotonic()
    publisher.close()
    assert time.monotonic() - started < 2
    publisher.close()
    assert publisher.stats == Stats(published=1, failed=1)
    assert "closed before the broker took it" in lost[0].error
    publisher.trajectory().browse("d")
    assert publisher.stats.dropped == 1
    assert not [t for t in threading.enumerate() if t.name == "retrail-delivery" and t.is_alive()]


def test_a_closed_publisher_raises_if_asked_to(closed_port: str) -> None:
    publisher = Publisher("a", bootstrap=closed_port, on_error="raise")
    publisher.close()
    with pytest.raises(PublisherClosedError):
        publisher.trajectory().browse("d")


# -- full queue ---------------------------------------------------------------------------------


def test_a_full_queue_drops_after_one_wait(closed_port: str) -> None:
    publisher = full_queue(closed_port, block_seconds=0.3)
    started = time.monotonic()
    publisher.trajectory().browse("late")
    first = time.monotonic() - started
    for _ in range(10):
        publisher.trajectory().browse("late")
    rest = time.monotonic() - started - first
    assert 0.3 <= first < 1.0
    assert rest < 0.3
    assert publisher.stats.dropped == 11
    publisher.close(0)


def test_a_full_queue_raises_after_a_wait_or_at_once(closed_port: str) -> None:
    for seconds in (0.0, 0.2):
        publisher = full_queue(closed_port, block_seconds=seconds, on_error="raise")
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(
                QueueFullError, match=rf"3 events wait.*{closed_port}.*topics create"
            ):
                publisher.trajectory().browse("late")
            assert seconds <= time.monotonic() - started < seconds + 0.5
        with pytest.raises(DeliveryError):
            publisher.close(0)


def test_bytes_fill_a_queue_too_but_one_event_always_fits(closed_port: str) -> None:
    publisher = Publisher("a", bootstrap=closed_port, max_queue_bytes=1000, block_seconds=0)
    publisher.trajectory().answer("x" * 5000)
    publisher.trajectory().browse("late")
    assert (publisher.stats.published, publisher.stats.dropped) == (1, 1)
    publisher.close(0)


def test_librdkafkas_own_bound_is_a_full_queue_too(closed_port: str) -> None:
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


def test_room_wakes_the_one_who_waits(closed_port: str) -> None:
    publisher = full_queue(closed_port, block_seconds=30, delivery_seconds=0.5, kafka=quick())
    started = time.monotonic()
    publisher.trajectory().browse("waits")
    assert 0.1 < time.monotonic() - started < 10
    assert publisher.stats.dropped == 0
    publisher.close(0)


def test_an_event_loop_never_waits(closed_port: str) -> None:
    publisher = full_queue(closed_port, block_seconds=30)

    async def agent() -> float:
        started = time.monotonic()
        async with publisher.trajectory() as trajectory:
            trajectory.search("q", ["a"])
        return time.monotonic() - started

    assert asyncio.run(agent()) < 1.0
    assert publisher.stats.dropped == 1
    publisher.close(0)


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
        async with Publisher("a", bootstrap=closed_port, close_seconds=0.5) as publisher:
            publisher.trajectory().browse("d")
        await publisher.aclose()
        assert publisher.stats.failed == 1

    assert asyncio.run(agent()) > 5


def test_a_producer_is_not_made_anew_after_the_end(closed_port: str) -> None:
    publisher = Publisher("a", bootstrap=closed_port)
    outbox = publisher._dispatch.outbox
    publisher.close()
    with pytest.raises(PublisherClosedError):
        outbox._started()
    assert not outbox_module._open


def test_a_callback_may_publish_fail_and_flush(closed_port: str, caplog: Any) -> None:
    publisher: Publisher

    def on_failure(event: LostEvent) -> None:
        publisher.trajectory("from the callback").browse("d") if event.seq < 1 else None
        publisher.flush(30)
        raise RuntimeError("the agent's callback is broken")

    publisher = full_queue(
        closed_port, block_seconds=30, delivery_seconds=0.3, on_failure=on_failure, kafka=quick()
    )
    eventually(lambda: publisher.stats.failed >= 3, what="given up events")
    assert "on_failure failed" in caplog.text
    publisher._dispatch._on_failure = None
    publisher.close(0)
    assert publisher.stats.waiting == 0


def full_queue(closed_port: str, **arguments: Any) -> Publisher:
    publisher = Publisher("a", bootstrap=closed_port, max_queue_events=3, **arguments)
    trajectory = publisher.trajectory("fills the queue")
    for number in range(3):
        trajectory.browse(f"d{number}")
    return publisher


def quick() -> dict[str, Any]:
    # librdkafka looks for messages that have timed out once in that time.
    return {"linger.ms": 0, "reconnect.backoff.max.ms": 200}


# -- configuration ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"agent": ""},
        {"agent": "x" * 129},
        {"agent": "a", "model": None},
        {"agent": "a", "on_error": "ignore"},
        {"agent": "a", "reasoning_text": "hide"},
        {"agent": "a", "max_queue_events": 0},
        {"agent": "a", "block_seconds": -1},
        {"agent": "a", "delivery_seconds": float("inf")},
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


def test_its_picture_holds_no_password(closed_port: str) -> None:
    publisher = Publisher(
        "a", bootstrap=closed_port, kafka={"sasl.password": "s3cret", "sasl.username": "me"}
    )
    assert repr(publisher) == (
        f"Publisher(agent='a', topic='trajectory-events', at='{closed_port}')"
    )
    publisher.close()


def test_a_producer_that_broke_for_good_is_replaced(
    closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        """A producer after a fatal error, which needs a lost sequence to come by."""

        def __init__(self, config: dict[str, Any]) -> None:
            made.append(self)

        def produce(self, *_: Any, **__: Any) -> None:
            raise KafkaException(KafkaError(KafkaError._FATAL, "sequence lost", fatal=True))

        def purge(self) -> None: ...

        def poll(self, timeout: float) -> None:
            time.sleep(timeout / 10)

        def __len__(self) -> int:
            return 0

    made: list[Broken] = []
    monkeypatch.setattr(outbox_module, "Producer", Broken)
    publisher = Publisher("a", bootstrap=closed_port)
    monkeypatch.undo()
    publisher.trajectory().browse("d")
    assert len(made) == 1
    assert publisher.stats == Stats(published=1, waiting=1)
    publisher.close(0)


# -- processes ----------------------------------------------------------------------------------

PUBLISH = """
import sys
from retrail import Publisher
publisher = Publisher("a", bootstrap=sys.argv[1], topic_prefix=sys.argv[2], close_seconds=2)
trajectory = publisher.trajectory("t")
for number in range(100):
    trajectory.browse(str(number))
"""


def test_the_end_of_the_process_delivers(mock_cluster: Any, prefix: str) -> None:
    done = run_agent(PUBLISH, mock_cluster.bootstrap, prefix)
    assert (done.returncode, done.stderr) == (0, "")
    events = mock_cluster.events(f"{prefix}trajectory-events", 100)
    assert [event["seq"] for event in events] == list(range(100))


def test_the_end_of_the_process_waits_only_so_long(closed_port: str) -> None:
    started = time.monotonic()
    done = run_agent(PUBLISH, closed_port, "x_", timeout=30)
    assert 2 <= time.monotonic() - started < 8
    assert done.returncode == 0
    assert "the publisher was closed before the broker took it" in done.stderr


FORK = """
import os, sys
from retrail import Publisher
publisher = Publisher("a", bootstrap=sys.argv[1], topic_prefix=sys.argv[2])
with publisher.trajectory("parent") as trajectory:
    for number in range(500):
        trajectory.browse(str(number))
    children = []
    for name in ("one", "two"):
        child = os.fork()
        if child == 0:
            assert publisher.stats.published == 0
            with publisher.trajectory(name) as own:
                own.browse("a")
            sys.exit(0)
        children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
print(publisher.flush(), publisher.stats)
"""


def test_a_forked_child_publishes_its_own_and_nothing_twice(mock_cluster: Any, prefix: str) -> None:
    done = run_agent(FORK, mock_cluster.bootstrap, prefix)
    assert done.returncode == 0, done.stderr
    assert "published=501, delivered=501, failed=0" in done.stdout
    events = mock_cluster.events(f"{prefix}trajectory-events", 505)
    seqs = {
        name: [event["seq"] for event in events if event["trajectory_id"] == name]
        for name in ("parent", "one", "two")
    }
    assert seqs == {"parent": list(range(501)), "one": [0, 1], "two": [0, 1]}


POOL = """
import multiprocessing, sys
from retrail import Publisher

def work(name):
    with publisher.trajectory(name) as trajectory:
        trajectory.browse("a")

if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    publisher = Publisher("a", bootstrap=sys.argv[1], topic_prefix=sys.argv[2])
    workers = [multiprocessing.Process(target=work, args=(f"t{n}",)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
"""


def test_multiprocessing_workers_deliver_at_their_end(mock_cluster: Any, prefix: str) -> None:
    done = run_agent(POOL, mock_cluster.bootstrap, prefix)
    assert done.returncode == 0, done.stderr
    events = mock_cluster.events(f"{prefix}trajectory-events", 6)
    assert {event["trajectory_id"] for event in events} == {"t0", "t1", "t2"}


def test_the_client_needs_nothing_but_confluent_kafka() -> None:
    script = """
import sys
import retrail
ours = {"schemas", "streams", "trainer", "consumers", "serving", "simulation", "deploy"}
heavy = {"pydantic", "typer", "rich", "orjson", "structlog", "torch", "pymilvus", "faust", "httpx"}
print(sorted((ours | heavy) & {name.partition(".")[0] for name in sys.modules}))
"""
    done = run_agent(script)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("thing", [Publisher, Trajectory, Stats, LostEvent])
def test_every_public_name_has_an_example(thing: type) -> None:
    methods = [m for n, m in inspect.getmembers(thing) if not n.startswith("_")]
    public = [thing, *(m for m in methods if callable(m) or isinstance(m, property))]
    assert [member for member in public if ">>>" not in (member.__doc__ or "")] == []


# -- later outcomes -----------------------------------------------------------------------------


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
    publisher = Publisher("a", bootstrap=closed_port, on_failure=lost.append, close_seconds=0.1)
    publisher.outcome("", "correct")
    publisher.outcome("t", "perhaps")  # type: ignore[arg-type]
    publisher.close()
    publisher.outcome("t", "correct")
    assert publisher.stats == Stats(dropped=3)
    assert [(event.type, event.seq) for event in lost] == [("outcome", None)] * 3
    strict = Publisher("a", bootstrap=closed_port, on_error="raise", close_seconds=0.1)
    with pytest.raises(InvalidEventError, match="outcome must be correct or incorrect"):
        strict.outcome("t", "unknown")  # type: ignore[arg-type]
    strict.close()


def test_outcomes_wait_for_room_as_events_do(closed_port: str) -> None:
    publisher = Publisher(
        "a",
        bootstrap=closed_port,
        on_error="raise",
        max_queue_events=1,
        block_seconds=0.1,
        close_seconds=0.1,
    )
    publisher.outcome("t", "correct")
    started = time.monotonic()
    with pytest.raises(QueueFullError):
        publisher.outcome("t", "incorrect")
    assert time.monotonic() - started >= 0.1
    with pytest.raises(DeliveryError):
        publisher.close()
