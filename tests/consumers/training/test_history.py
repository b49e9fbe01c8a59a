"""The history of runs and releases."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consumers import releases
from consumers.tasks import StoppedError
from consumers.training.history import RunHistory
from retrail_runtime import kafka
from schemas import runs
from schemas.releases import Live
from schemas.settings import Settings
from schemas.topics import Topics
from tests.consumers.training.world import metric
from tests.trained import NOW, a_manifest, a_release
from trainer.data import lineage
from trainer.registry.registry import Registry


def test_manifests_and_releases_are_read_incrementally(settings: Settings, topics: Topics) -> None:
    producer = kafka.producer(settings)
    one, two = RunHistory(settings), RunHistory(settings)
    invalid = metric("retrail_consumer_invalid_records_total", stage="runs")
    releases.write_release(producer, settings, a_release(1, None, "first"))
    one.announce(producer, a_manifest(2))
    kafka.publish_and_wait(producer, topics.training_runs, value=b"{")
    releases.write_release(producer, settings, a_release(2, 1, "hold"))
    one.announce(producer, a_manifest(3))
    for history in (one, two):
        found = history.refresh()
        assert found.runs == (a_manifest(2), a_manifest(3))
        assert sorted(found.releases.by_version) == [1, 2]
        assert found.next_version() == 4
    assert metric("retrail_consumer_invalid_records_total", stage="runs") == invalid + 1
    [record, *_] = kafka.read_to_end(settings, topics.training_runs)
    assert (record.key, record.value) == runs.encode(a_manifest(2))


def test_a_version_announced_by_another_trainer_stops_the_run(
    settings: Settings, topics: Topics
) -> None:
    producer = kafka.producer(settings)
    releases.write_release(producer, settings, a_release(1, None, "first"))
    first, second = RunHistory(settings), RunHistory(settings)
    second.refresh()
    first.announce(producer, a_manifest(2))
    with pytest.raises(StoppedError, match="version 2 first"):
        second.announce(producer, a_manifest(2, run_id="f" * 32))
    assert second.history == first.refresh()
    assert second.history.runs == (a_manifest(2),)


def test_records_of_another_program_are_logged_once_and_do_not_stop_training(
    settings: Settings, topics: Topics
) -> None:
    """Case: {release 2} or {release 3, decision reject} and ``live`` by another program."""
    producer = kafka.producer(settings)
    releases.write_release(producer, settings, a_release(1, None, "first"))
    releases.write_live(producer, settings, Live(version=1, why="", changed_at=NOW))
    foreign = [
        releases.write_release(producer, settings, a_release(3, 7, "ship")),
        releases.write_live(producer, settings, Live(version=9, why="", changed_at=NOW)),
    ]
    releases.write_release(producer, settings, a_release(2, 1, "ship"))
    foreign.append(releases.write_live(producer, settings, Live(version=2, why="", changed_at=NOW)))
    releases.write_release(producer, settings, a_release(3, 1, "reject"))
    foreign.append(releases.write_live(producer, settings, Live(version=3, why="", changed_at=NOW)))
    runs_offset = kafka.publish_and_wait(
        producer, topics.training_runs, key=b"x", value=runs.encode(a_manifest(2, parent=8))[1]
    )

    one = RunHistory(settings)
    with capture_logs() as logged:
        history = one.refresh()
        one.refresh()

    refused = [entry for entry in logged if entry["event"].startswith("record refused")]
    assert [(e["topic"], e["offset"]) for e in refused if "releases" in e["topic"]] == [
        (topics.retriever_releases, offset) for offset in (*foreign[:2], foreign[3], foreign[2])
    ]
    assert [e["offset"] for e in refused if e["topic"] == topics.training_runs] == [runs_offset]
    assert all("retrail promote" in e["remedy"] for e in refused if "releases" in e["topic"])
    live = history.releases.live
    assert live is not None
    assert live.version == 1, "release 2 has no run, and its model is not in the registry"
    assert history.runs == ()
    assert history.next_version() == 4


def test_a_release_whose_model_is_in_the_registry_stays_live_without_its_run(
    settings: Settings, topics: Topics
) -> None:
    """Then ``training-runs`` was recreated, and only an operator can choose the live release."""
    producer = kafka.producer(settings)
    releases.write_release(producer, settings, a_release(1, None, "first"))
    releases.write_live(producer, settings, Live(version=1, why="", changed_at=NOW))

    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"weights")

    model = Registry.of(settings).publish(settings.retriever, 2, write)
    releases.write_release(producer, settings, a_release(2, 1, "ship", model=model))
    releases.write_live(producer, settings, Live(version=2, why="", changed_at=NOW))

    history = RunHistory(settings).refresh()

    assert history.releases.live is not None
    assert history.releases.live.version == 2
    assert [one.version for one in lineage.without_run(history, 2)] == [2]
