"""Steps become numbered events, and a rejected one leaves a gap that everyone can see."""

import asyncio
import json
import os
import threading
from typing import Any

import pytest

from retrail import (
    ClosedError,
    DeliveryError,
    InvalidEventError,
    LostEvent,
    Publisher,
    PublishError,
    QueueFullError,
    Timeout,
    Trajectory,
)
from retrail.trajectory import count_tokens
from tests.retrail.conftest import Cluster, FakeProducer, Made, Published


def numbered(events: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(event["seq"], event["type"]) for event in events]


def test_the_ten_lines_of_the_readme(make: Made, published: Published) -> None:
    publisher = make()
    with publisher.trajectory() as trajectory:
        trajectory.search("when was it built", ["d7", "d2", "d5"])
        trajectory.browse("d2")
        trajectory.reason("The page gives the date directly …")
        trajectory.answer("1965")
        trajectory.end("correct")
    events = published(publisher)
    assert numbered(events) == list(enumerate(["search", "browse", "reasoning", "answer", "end"]))
    assert {event["trajectory_id"] for event in events} == {trajectory.id}
    assert len({event["event_id"] for event in events}) == 5
    assert events[2]["about"] == "d2"
    assert "tokens" not in events[2]
    assert events[4]["outcome"] == "correct"


def test_an_unnumbered_trajectory_is_continued_by_any_publisher(
    make: Made, published: Published
) -> None:
    publisher = make()
    with publisher.trajectory("shared", numbered=False) as first:
        assert first.acknowledged is None
        first.search("q", ["a"])
        first.browse("a")
        assert first.acknowledged.result(10) is True
    with publisher.trajectory("shared", numbered=False) as second:
        second.reason("It gives the year.")
        second.reason(verdict="irrelevant", about="b")
        second.end("correct")
        assert second.acknowledged is not None
        assert second.acknowledged.result(10) is True
    events = [event for event in published(publisher) if event["trajectory_id"] == "shared"]
    kinds = ["search", "browse", "reasoning", "reasoning", "end"]
    assert [event["type"] for event in events] == kinds
    assert not any("seq" in event for event in events)
    assert (events[2]["about_previous"], "about" in events[2]) == (True, False)
    assert ("about_previous" in events[3], events[3]["about"]) == (False, "b")
    assert len({event["event_id"] for event in events}) == 5


def test_an_unnumbered_event_that_is_refused_is_not_acknowledged(make: Made) -> None:
    lost: list[LostEvent] = []
    publisher = make(on_failure=lost.append)
    trajectory = publisher.trajectory("t", numbered=False)
    trajectory.search(" ", [])
    assert trajectory.acknowledged is not None
    assert trajectory.acknowledged.result(0) is False
    assert [(event.trajectory_id, event.seq, event.type) for event in lost] == [
        ("t", None, "search")
    ]


def test_an_unnumbered_event_that_no_broker_takes_is_not_acknowledged(closed_port: str) -> None:
    timeout = Timeout(delivery=0.2, close=1.0)
    with Publisher("me", bootstrap=closed_port, timeout=timeout) as publisher:
        trajectory = publisher.trajectory("t", numbered=False)
        trajectory.search("q", [])
        assert trajectory.acknowledged is not None
        assert trajectory.acknowledged.result(30) is False


def test_a_reasoning_is_about_the_browse_right_before_it_only(
    make: Made, published: Published
) -> None:
    publisher = make()
    with publisher.trajectory() as trajectory:
        trajectory.reason("plan")
        trajectory.search("q", ["a"])
        trajectory.reason("after a search")
        trajectory.browse("a")
        trajectory.browse("b")
        trajectory.reason("first")
        trajectory.reason("second")
        trajectory.browse("c")
        trajectory.other("calculator")
        trajectory.reason("after another step")
    reasonings = [event for event in published(publisher) if event["type"] == "reasoning"]
    assert [event.get("about") for event in reasonings] == [None, None, "b", None, None]


def test_leaving_the_block_ends_it_once(make: Made, published: Published) -> None:
    publisher = make()
    with publisher.trajectory("left") as trajectory:
        trajectory.search("q", [])
    with publisher.trajectory("untouched"):
        pass
    trajectory = publisher.trajectory("raised")
    trajectory.search("q", [])
    with pytest.raises(ZeroDivisionError), trajectory:
        raise ZeroDivisionError

    async def agent() -> None:
        async with publisher.trajectory("async") as trajectory:
            trajectory.search("q", [])
            trajectory.end("incorrect")

    asyncio.run(agent())
    ends = {e["trajectory_id"]: e["outcome"] for e in published(publisher) if e["type"] == "end"}
    assert ends == {"left": "unknown", "raised": "unknown", "async": "incorrect"}
    assert publisher.stats.published == 6


def test_an_end_that_flushes_raises_what_failed(closed_port: str) -> None:
    publisher = Publisher("a", bootstrap=closed_port, on_error="raise", timeout=Timeout(delivery=1))
    trajectory = publisher.trajectory("task-1")
    assert repr(trajectory) == "Trajectory('task-1', agent='a')"
    with pytest.raises(DeliveryError):
        trajectory.end(flush=20)
    publisher.close()


def test_nothing_follows_the_end(make: Made) -> None:
    publisher = make()
    trajectory = publisher.trajectory()
    trajectory.end("correct")
    trajectory.search("q", [])
    trajectory.end("incorrect")
    assert (publisher.stats.published, publisher.stats.dropped) == (1, 2)
    strict = make(on_error="raise").trajectory()
    strict.end()
    with pytest.raises(ClosedError, match="has ended"):
        strict.browse("a")


def test_ids_tenants_and_versions(make: Made, published: Published) -> None:
    publisher = make(tenant="acme", retriever_version=3)
    with publisher.trajectory("t1") as trajectory:
        trajectory.search("q", [])
        trajectory.search("q", [], retriever_version=4)
    with publisher.trajectory("t2", tenant="other", retriever_version=9) as trajectory:
        trajectory.search("q", [])
    events = published(publisher)
    found = [(e["tenant"], e["retriever_version"]) for e in events]
    assert found == [("acme", 3), ("acme", 4), ("acme", 4), ("other", 9), ("other", 9)]
    assert {(e["agent"]["name"], e["agent"]["model"]) for e in events} == {("my-agent", "m")}


def test_one_publisher_serves_several_agents(make: Made, published: Published) -> None:
    publisher = make()
    with publisher.trajectory("t1", agent="other", model="") as trajectory:
        trajectory.search("q", [])
    with publisher.trajectory("t2", model="big") as trajectory:
        trajectory.search("q", [])
    agents = [(e["agent"]["name"], e["agent"]["model"]) for e in published(publisher)]
    assert agents == [("other", "")] * 2 + [("my-agent", "big")] * 2


def test_threads_share_a_trajectory_without_a_gap_or_a_repeat(
    make: Made, published: Published
) -> None:
    publisher = make()
    trajectory = publisher.trajectory("shared")
    threads = [
        threading.Thread(target=lambda: [trajectory.browse(f"d{i}") for i in range(200)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event["seq"] for event in published(publisher)] == list(range(1600))


# -- texts --------------------------------------------------------------------------------------

SECRET = "Kunigunde of Ulm was treated by Hartwig, says the page."
"""None of its names can be part of a random id or of a time."""


def everything(publisher: Publisher, mock_cluster: Cluster, topic: str) -> bytes:
    """All bytes that were sent: keys, values, headers."""
    assert publisher.flush(10) == 0
    return b"\n".join(
        (m.key() or b"") + (m.value() or b"") + repr(m.headers()).encode()
        for m in mock_cluster.messages(topic, publisher.stats.delivered)
    )


def hook_that_raises(text: str) -> str:
    raise ValueError(f"cannot parse {text}")


@pytest.mark.parametrize(
    "policy", ["withhold", hook_that_raises, lambda text: None, lambda text: text.encode()]
)
def test_a_withheld_text_is_in_no_byte_that_is_sent_or_logged(
    policy: Any,
    make: Made,
    published: Published,
    mock_cluster: Cluster,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lost: list[LostEvent] = []
    publisher = make(
        query_text=policy, reasoning_text=policy, answer_text=policy, on_failure=lost.append
    )
    with publisher.trajectory() as trajectory:
        trajectory.search(SECRET, ["a"])
        trajectory.browse("a")
        trajectory.reason(SECRET, verdict="relevant")
        trajectory.reason(SECRET, verdict=SECRET)  # type: ignore[arg-type]
        trajectory.answer(SECRET)
        trajectory.end(SECRET)  # type: ignore[arg-type]
    sent = everything(publisher, mock_cluster, publisher.topic)
    logged = caplog.text + repr(lost) + repr(publisher.stats)
    assert len(lost) == 2
    for word in ("Kunigunde", "Ulm", "Hartwig"):
        assert word.encode() not in sent
        assert word not in logged
    search, _, reasoning, *_ = published(publisher)
    assert (search["type"], search["name"], "hits" in search) == ("other", "search", False)
    assert reasoning["tokens"] == count_tokens(SECRET)
    assert (reasoning["verdict"], reasoning["about"]) == ("relevant", "a")
    assert "text" not in reasoning
    assert publisher.stats.redaction_failures == (0 if policy == "withhold" else 4) or (
        callable(policy) and policy("x") is None
    )


def test_a_redacted_query_stays_a_search(make: Made, published: Published) -> None:
    publisher = make(query_text=lambda text: text.replace("Ann", "…"))
    with publisher.trajectory() as trajectory:
        trajectory.search("where is Ann", ["a"])
        trajectory.search("Ann", [])
        trajectory.search("Ann ", [])
    found = published(publisher)
    assert [event.get("query") for event in found] == ["where is …", "…", "… ", None]


def test_a_redacted_text_carries_the_length_of_the_original(
    make: Made, published: Published
) -> None:
    publisher = make(
        reasoning_text=lambda text: text.split(",")[0], answer_text=lambda text: text.upper()
    )
    with publisher.trajectory() as trajectory:
        trajectory.reason(SECRET)
        trajectory.reason(SECRET, tokens=77)
        trajectory.reason(tokens=5, verdict="irrelevant")
        trajectory.answer("yes")
    first, second, third, answer, _ = published(publisher)
    assert first["text"] == second["text"] == "Kunigunde of Ulm was treated by Hartwig"
    assert (first["tokens"], second["tokens"]) == (count_tokens(SECRET), 77)
    assert (third["tokens"], third["verdict"], "text" in third) == (5, "irrelevant", False)
    assert answer["text"] == "YES"


# -- what is refused ----------------------------------------------------------------------------


def test_a_dropped_event_leaves_a_gap(make: Made, published: Published) -> None:
    lost: list[LostEvent] = []
    publisher = make(on_failure=lost.append)
    with publisher.trajectory("t") as trajectory:
        trajectory.search("q", ["a"])
        trajectory.browse("")
        trajectory.reason("about a browse that the log does not have")
        trajectory.answer("x" * 5_000_000)
    assert numbered(published(publisher)) == [(0, "search"), (2, "reasoning"), (4, "end")]
    assert [(e.trajectory_id, e.seq, e.type) for e in lost] == [
        ("t", 1, "browse"),
        ("t", 3, "answer"),
    ]
    assert "about" not in published(publisher)[1]
    assert publisher.stats.dropped == publisher.stats.lost == 2


def test_a_raised_event_may_be_repeated_under_its_number(make: Made, published: Published) -> None:
    publisher = make(on_error="raise")
    with publisher.trajectory() as trajectory:
        with pytest.raises(InvalidEventError):
            trajectory.search("q", [""])
        with pytest.raises(ClosedError, match="first event"):
            trajectory.browse("a")
    assert publisher.stats.published == 0

    with publisher.trajectory() as trajectory:
        trajectory.search("q", ["a"])
        for _ in range(2):
            with pytest.raises(InvalidEventError) as caught:
                trajectory.answer("x" * 5_000_000)
            assert (caught.value.trajectory_id, caught.value.event) == (trajectory.id, "answer")
            assert (caught.value.size or 0) > 5_000_000
        trajectory.browse("a")
    assert numbered(published(publisher)) == [(0, "search"), (2, "browse"), (3, "end")]


def test_a_full_queue_raises_and_the_same_call_again_fills_the_hole(
    fake: type[FakeProducer],
) -> None:
    publisher = Publisher("a", on_error="raise", timeout=Timeout(block=0))
    [producer] = fake.made
    producer.full = True
    with publisher.trajectory("t") as trajectory:
        with pytest.raises(QueueFullError, match="events wait for the broker") as caught:
            trajectory.search("q", ["a"])
        assert (caught.value.trajectory_id, caught.value.event) == ("t", "search")
        producer.full = False
        trajectory.search("q", ["a"])
        trajectory.browse("a")
        producer.full = True
        with pytest.raises(QueueFullError):
            trajectory.end("correct")
        producer.full = False
    publisher.close()
    events = [json.loads(value) for _, _, value in producer.records]
    assert numbered(events) == [(0, "search"), (1, "browse"), (2, "end")]
    assert events[2]["outcome"] == "correct"


def test_an_error_of_the_end_does_not_hide_the_agents_own(fake: type[FakeProducer]) -> None:
    publisher = Publisher("a", on_error="raise", timeout=Timeout(block=0))
    trajectory = publisher.trajectory()
    trajectory.search("q", [])
    fake.made[0].full = True
    with pytest.raises(ZeroDivisionError), trajectory:
        raise ZeroDivisionError
    with pytest.raises(QueueFullError), trajectory:
        pass
    publisher.close()


def test_a_trajectory_that_cannot_begin_is_dropped_whole(make: Made) -> None:
    publisher = make()
    for trajectory in (
        publisher.trajectory("x" * 600),
        publisher.trajectory(retriever_version=-1),
        publisher.trajectory(tenant="x" * 200),
    ):
        with trajectory:
            trajectory.search("q", [])
            trajectory.browse("a")
    first_refused = publisher.trajectory()
    with first_refused:
        first_refused.search(None, [])  # type: ignore[arg-type]
        first_refused.browse("a")
    assert (publisher.stats.published, publisher.stats.dropped) == (0, 8)
    with pytest.raises(InvalidEventError, match="trajectory_id"):
        make(on_error="raise").trajectory("")


def test_an_agents_odd_objects_do_not_take_it_down(make: Made) -> None:
    class Hits:
        def __iter__(self) -> Any:
            raise RuntimeError("the search result expired")

    publisher = make()
    publisher.trajectory().search("q", Hits())
    assert publisher.stats.dropped == 1
    with pytest.raises(PublishError, match="the search result expired"):
        make(on_error="raise").trajectory().search("q", Hits())


def test_a_forked_child_cannot_publish_its_parents_trajectory(
    make: Made, published: Published
) -> None:
    publisher = make()
    read, write = os.pipe()
    with publisher.trajectory("parent") as trajectory:
        trajectory.search("q", ["a"])
        child = os.fork()
        if child == 0:
            trajectory.browse("a")
            Trajectory.__exit__(trajectory, None, None, None)
            os.write(write, repr(publisher.stats).encode())
            os._exit(0)
        os.waitpid(child, 0)
        trajectory.browse("b")
    assert b"published=0, delivered=0, failed=0, dropped=1" in os.read(read, 1000)
    assert numbered(published(publisher)) == [(0, "search"), (1, "browse"), (2, "end")]
