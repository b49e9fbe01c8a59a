"""The local copy of outcomes, on a real broker."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from consumers.training.outcome_store import OutcomeStore

from retrail import Publisher
from retrail_runtime import kafka
from schemas.outcomes import OutcomeReport
from schemas.settings import Settings
from schemas.topics import Topics
from tests.consumers.training.world import metric


@pytest.fixture
def store(settings: Settings, topics: Topics, tmp_path: Path) -> Iterator[OutcomeStore]:
    opened = OutcomeStore(settings, tmp_path / "copies")
    yield opened
    opened.close()


def test_the_last_report_counts_and_the_snapshot_says_what_it_saw(
    settings: Settings, topics: Topics, store: OutcomeStore
) -> None:
    with Publisher(
        "me", bootstrap=settings.kafka_bootstrap, topic_prefix=settings.topic_prefix
    ) as publisher:
        publisher.outcome("a", "incorrect")
        publisher.outcome("a", "correct", source="user")
        publisher.outcome("b", "incorrect")
        publisher.outcome("c", "correct")
    foreign = OutcomeReport(trajectory_id="d", outcome="correct", reported_at=datetime.now(UTC))
    kafka.send_all(
        kafka.producer(settings),
        topics.outcomes,
        [(b"c", None), (b"a", b"no report"), (b"e", foreign.to_json())],
    )
    before = metric("retrail_consumer_invalid_records_total", stage="outcomes")
    store.catch_up(30)
    assert metric("retrail_consumer_invalid_records_total", stage="outcomes") == before + 2
    with store.snapshot() as known:
        assert [known.of(name) for name in "abcde"] == ["correct", "incorrect", None, None, None]
        assert sum(span.end - span.start for span in known.ranges) == 7
        assert {span.topic for span in known.ranges} == {topics.outcomes}
        with Publisher(
            "me", bootstrap=settings.kafka_bootstrap, topic_prefix=settings.topic_prefix
        ) as publisher:
            publisher.outcome("b", "correct")
        store.catch_up(30)
        assert known.of("b") == "incorrect"
    with store.snapshot() as known:
        assert known.of("b") == "correct"
