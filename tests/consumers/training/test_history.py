"""The history of runs and releases, read and added to."""

import pytest

from consumers import releases
from consumers.errors import StoppedError
from consumers.training.history import RunHistory
from retrail_runtime import kafka
from schemas import runs
from schemas.settings import Settings
from schemas.topics import Topics
from tests.consumers.training.world import metric
from tests.trained import a_manifest, a_release


def test_manifests_and_releases_are_read_as_they_come(settings: Settings, topics: Topics) -> None:
    producer = kafka.producer(settings)
    one, two = RunHistory(settings), RunHistory(settings)
    invalid = metric("retrail_consumer_invalid_records_total", stage="runs")
    releases.write_release(producer, settings, a_release(1, None, "first"))
    one.announce(producer, a_manifest(2))
    kafka.publish_and_wait(producer, topics.training_runs, value=b"{")
    one.announce(producer, a_manifest(3))
    releases.write_release(producer, settings, a_release(2, 1, "hold"))
    for history in (one, two):
        found = history.refresh()
        assert found.runs == (a_manifest(2), a_manifest(3))
        assert sorted(found.releases.by_version) == [1, 2]
        assert found.next_version() == 4
    assert metric("retrail_consumer_invalid_records_total", stage="runs") == invalid + 2
    [record, *_] = kafka.read_to_end(settings, topics.training_runs)
    assert (record.key, record.value) == runs.encode(a_manifest(2))


def test_a_version_that_another_trainer_announced_first_is_lost(
    settings: Settings, topics: Topics
) -> None:
    producer = kafka.producer(settings)
    first, second = RunHistory(settings), RunHistory(settings)
    second.refresh()
    first.announce(producer, a_manifest(2))
    with pytest.raises(StoppedError, match="version 2 first"):
        second.announce(producer, a_manifest(2, run_id="f" * 32))
    assert second.history == first.refresh()
    assert second.history.runs == (a_manifest(2),)
