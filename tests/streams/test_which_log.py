"""The source topic is deleted and created again, or enlarged; somebody forges a judged event."""

import json

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from deploy import topics as topics_module
from schemas.topics import Topics
from tests.streams.judged_log import judged_value, numbered, search
from tests.streams.topics import assert_same_pairs, publish, read, send
from tests.streams.trajectories import mined_offline, some_events, trajectory
from tests.waiting import eventually


def create_again(settings, meanwhile=lambda: None):
    """Delete trajectory-events and create it again, as a restore or a move does."""
    topic, admin = Topics.of(settings).trajectory_events, AdminClient(settings.kafka())
    admin.delete_topics([topic])[topic].result(30)
    eventually(lambda: topic not in admin.list_topics(timeout=10).topics, 30, "its end")
    meanwhile()
    topics_module.ensure(settings)
    eventually(
        lambda: len(admin.list_topics(timeout=10).topics[topic].partitions) == settings.partitions,
        30,
        "its partitions",
    )


@pytest.mark.parametrize("before", [5, 60], ids=["fewer records before", "more records before"])
def test_a_topic_that_is_created_again_under_running_workers(settings, fleet, before):
    """Case: 0 of 40 trajectories gave a pair, silently, also after a restart."""
    workers = [fleet.start("judge"), fleet.start("mine")]
    published = some_events(before, "before")
    publish(settings, published)
    expected = mined_offline(published, settings)
    fleet.until_pairs(expected)
    create_again(settings)
    for name, count in (("after", 40), ("after a restart", 5)):
        events = some_events(count, name)
        publish(settings, events)
        expected |= mined_offline(events, settings)
        fleet.until_pairs(expected)
        assert [worker.stop() for worker in workers] == [0, 0]
        workers = [fleet.start("judge"), fleet.start("mine")]
    assert_same_pairs(settings, expected)
    eventually(lambda: all(w.ports and w.page("/readyz")[0] == 200 for w in workers), 30, "ready")


def test_a_topic_that_is_gone_for_a_while(settings, fleet):
    """A worker whose partitions were taken from it gets those of the new topic."""
    judge, miner = fleet.start("judge"), fleet.start("mine")
    published = some_events(5, "before")
    publish(settings, published)
    expected = mined_offline(published, settings)
    fleet.until_pairs(expected)
    owned = "retrail_consumer_assigned_partitions"

    def gone():
        eventually(lambda: judge.sample(owned) == 0, 60, "a judge without partitions")
        eventually(lambda: "does not exist" in judge.page("/readyz")[1], 30, "the reason")
        assert judge.page("/healthz")[0] == 200

    create_again(settings, gone)
    events = some_events(40, "after")
    publish(settings, events)
    expected |= mined_offline(events, settings)
    fleet.until_pairs(expected)
    assert_same_pairs(settings, expected)
    eventually(lambda: judge.page("/readyz")[0] == 200, 30, "a judge that is ready")
    assert [worker.stop() for worker in (judge, miner)] == [0, 0]


def test_a_topic_that_was_created_again_while_no_worker_ran(settings, fleet):
    """It has more records by then than the old one had: the committed offset is within it."""
    published = some_events(5, "before")
    publish(settings, published)
    expected = mined_offline(published, settings)
    workers = [fleet.start("judge"), fleet.start("mine")]
    fleet.until_pairs(expected)
    assert [worker.stop() for worker in workers] == [0, 0]
    create_again(settings)
    events = some_events(40, "after")
    publish(settings, events)
    expected |= mined_offline(events, settings)
    workers = [fleet.start("judge"), fleet.start("mine")]
    fleet.until_pairs(expected)
    assert_same_pairs(settings, expected)
    assert [worker.stop() for worker in workers] == [0, 0]


def test_a_forged_judged_event_does_not_silence_its_partition(settings, fleet):
    """Case: a judged event with source_offset 2^62 silenced its partition for good."""
    topics = Topics.of(settings)
    workers = [fleet.start("judge"), fleet.start("mine")]
    events = some_events(10, "before")
    publish(settings, events)
    expected = mined_offline(events, settings)
    fleet.until_pairs(expected)
    genuine = [json.loads(one.value()) for one in read(settings, topics.judged_events) if one.key()]
    places = {
        (event["source_topic_id"], event["source_partition"]): event["trajectory_id"]
        for event in genuine
    }
    forgery = numbered("forged", [search("q", "a")])[0]
    for (topic_id, partition), trajectory_id in places.items():
        source = {"source_topic_id": topic_id, "source_partition": partition}
        value = judged_value(forgery | {"trajectory_id": trajectory_id}, 2**62, 2**62, **source)
        send(settings, [(trajectory_id.encode(), value, [])], topics.judged_events)
    refused = "retrail_mine_events_total"
    eventually(lambda: workers[1].sample(refused, result="refused") == len(places), 20, "refusals")
    eventually(lambda: "are refused" in workers[1].page("/readyz")[1], 10, "health that shows it")
    assert "judged events are refused" in workers[1].log
    for number in range(2):
        more = trajectory(f"after {number}") + trajectory(f"also after {number}")
        publish(settings, more)
        expected |= mined_offline(more, settings)
        fleet.until_pairs(expected)
        assert [worker.stop() for worker in workers] == [0, 0]
        workers = [fleet.start("judge"), fleet.start("mine")]
    assert_same_pairs(settings, expected)


def add_a_partition(settings, *topics):
    """One more than the installation has."""
    admin = AdminClient(settings.kafka())
    wanted = [NewPartitions(topic, settings.partitions + 1) for topic in topics]
    for done in admin.create_partitions(wanted).values():
        done.result(30)


def test_a_partition_that_is_added_is_refused_and_none_of_its_records_is_lost(settings, fleet):
    """Partition counts are never changed in place. Case: new partitions of trajectory-events."""
    topics = Topics.of(settings)
    judge, miner = fleet.start("judge"), fleet.start("mine")
    published = some_events(10, "before")
    publish(settings, published)
    expected = mined_offline(published, settings)
    fleet.until_pairs(expected)
    add_a_partition(settings, topics.trajectory_events)
    assert judge.wait(60) == 1
    assert "ended: " in judge.log
    assert "had 2 partitions when this worker started" in judge.log
    again = fleet.start("judge")
    assert again.wait(30) == 1
    assert "need the same number of partitions" in again.log
    more = some_events(40, "after")
    publish(settings, more)
    assert {one.partition() for one in read(settings, topics.trajectory_events)} == {0, 1, 2}
    # An operator who changes all topics alike, and loses only what was open meanwhile.
    others = (topics.judged_events, topics.trajectory_events_dlq, topics.labelled_pairs)
    add_a_partition(settings, *others)
    assert miner.wait(60) == 1
    workers = [fleet.start("judge"), fleet.start("mine")]
    expected |= mined_offline(more, settings)
    fleet.until_pairs(expected)
    assert_same_pairs(settings, expected)
    assert [worker.stop() for worker in workers] == [0, 0]
