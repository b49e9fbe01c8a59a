"""Judge and miner as processes on Apache Kafka: what goes in comes out, and nothing is lost."""

import json
import signal

from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from schemas.base import DeadLetter
from schemas.topics import Topics
from streams.events import encode
from streams.importing.importer import Importer
from streams.importing.offline import mine
from tests.shared_data import LRAT, needs_lrat
from tests.streams.topics import (
    assert_judged_completely,
    assert_same_pairs,
    judged_of,
    pairs_of,
    publish,
    read,
    send,
)
from tests.streams.trajectories import mined_offline, some_events, trajectory
from tests.waiting import eventually


def test_events_become_the_pairs_that_offline_mining_gives(settings, fleet):
    events = some_events(40)
    expected = mined_offline(events, settings)
    assert len(expected) > 60
    publish(settings, events)
    workers = [fleet.start("judge"), fleet.start("mine")]
    fleet.until_pairs(expected)
    assert assert_same_pairs(settings, expected) == 0
    assert_judged_completely(settings)
    assert b"Great, the document" not in b"".join(
        message.value() for message in read(settings, Topics.of(settings).judged_events)
    )

    def ticks():
        messages = read(settings, Topics.of(settings).judged_events)
        partitions = {message.partition() for message in messages if message.key() is None}
        return partitions == {0, 1}

    eventually(ticks, 10, "tick on every partition")
    assert [worker.stop() for worker in workers] == [0, 0]


def test_after_a_clean_stop_nothing_is_done_twice(settings, fleet):
    published = []
    for name in ("first", "second"):
        events = some_events(10, name)
        publish(settings, events)
        published += events
        expected = mined_offline(published, settings)
        workers = [fleet.start("judge"), fleet.start("mine")]
        fleet.until_pairs(expected)
        assert [worker.stop() for worker in workers] == [0, 0]
    assert assert_same_pairs(settings, expected) == 0
    assert sum(map(len, judged_of(settings).values())) == len(published)


def test_what_is_no_event_is_set_aside_as_it_came(settings, fleet):
    good = trajectory("good")
    value = json.loads(good[0].to_json())

    def changed(**fields):
        return json.dumps(value | fields).encode()

    bad = [
        ("malformed_json", b"good", b"{not json"),
        ("malformed_json", b"good", b"\xff\xfe"),
        ("malformed_json", b"good", None),
        ("unknown_type", b"good", changed(type="teleport")),
        ("missing_field", b"good", json.dumps({"type": "search"}).encode()),
        ("invalid_field", b"good", changed(seq=-1)),
        ("invalid_field", b"good", changed(seq="0")),
        ("invalid_field", b"good", changed(surprise=1)),
        ("unsupported_version", b"good", changed(schema_version="2.0")),
        ("wrong_key", b"somebody else", changed()),
        ("wrong_key", None, changed()),
        ("missing_field", b"good", b"{" + b" " * 4_000_000 + b"}"),
    ]
    headers = [("ce_id", b"7"), ("trace", b"\x00\xff")]
    newer = json.dumps(json.loads(good[1].to_json()) | {"schema_version": "1.7", "mood": "gay"})
    half = len(bad) // 2
    send(settings, [(key, content, headers) for _, key, content in bad[:half]])
    publish(settings, good[:1])
    send(settings, [(b"good", newer.encode(), [])])
    publish(settings, good[2:])
    send(settings, [(key, content, headers) for _, key, content in bad[half:]])
    expected = mined_offline(good, settings)
    assert expected

    judge = fleet.start("judge")
    fleet.start("mine")
    fleet.until_pairs(expected)
    topics = Topics.of(settings)

    def dead():
        found = read(settings, topics.trajectory_events_dlq)
        return found if len(found) >= len(bad) else None

    letters = eventually(dead, 20, f"{len(bad)} dead letters")
    assert_same_pairs(settings, expected)
    sources = {
        (message.partition(), message.offset()): message
        for message in read(settings, topics.trajectory_events)
    }
    found = []
    for letter in letters:
        about = DeadLetter.read(letter.headers())
        source = sources[about.partition, about.offset]
        assert about.topic == topics.trajectory_events
        assert letter.key() == source.key()
        assert (letter.value() or b"") == (source.value() or b"")
        assert letter.headers()[: len(headers)] == headers
        assert about.stage == "judge"
        assert about.message
        found.append((about.reason, letter.key(), source.value()))
    assert sorted(found, key=repr) == sorted(bad, key=repr)
    assert judge.stop() == 0


def test_killed_workers_lose_nothing(settings, fleet):
    events = some_events(120)
    expected = mined_offline(events, settings)
    workers = {"judge": fleet.start("judge"), "mine": fleet.start("mine")}
    third = len(events) // 3
    for number in range(3):
        publish(settings, events[number * third : (number + 1) * third])
        some = min(len(expected), 40 * number + 1)
        eventually(lambda some=some: len(pairs_of(settings)) >= some, 40, "some pairs")
        for role in workers:
            workers[role].kill()
            workers[role] = fleet.start(role)
    publish(settings, events[3 * third :])
    fleet.until_pairs(expected)
    assert_same_pairs(settings, expected)
    assert_judged_completely(settings)


def test_two_of_each_share_the_work_and_take_over(settings, fleet):
    events = some_events(80)
    expected = mined_offline(events, settings)
    half = len(events) // 2
    first = [fleet.start("judge"), fleet.start("mine")]
    publish(settings, events[:half])
    eventually(lambda: pairs_of(settings), 40, "first pairs")
    second = [fleet.start("judge"), fleet.start("mine")]
    for worker in second:
        eventually(lambda worker=worker: '"starts": {"' in worker.log, 30, "share of the work")
    publish(settings, events[half:])
    assert [worker.stop() for worker in first] == [0, 0]
    fleet.until_pairs(expected)
    assert_same_pairs(settings, expected)
    assert_judged_completely(settings)
    assert [worker.stop() for worker in second] == [0, 0]


def test_a_message_that_faust_skips_is_noticed_and_recovered(settings, fleet):
    """The consumer is moved ahead behind the worker's back, as a lost rebalance race would."""
    skip = """
from streams.loop.worker import Worker
deliver, skipped = Worker.deliver, set()
async def skipping(self, partition, records):
    await deliver(self, partition, records)
    if partition not in skipped:
        skipped.add(partition)
        await self.app.seek(partition, self.positions()[partition] + 5)
Worker.deliver = skipping
"""
    events = some_events(40)
    expected = mined_offline(events, settings)
    half = len(events) // 2
    publish(settings, events[:half])
    workers = [fleet.start(role, skip) for role in ("judge", "mine")]
    eventually(lambda: sum(map(len, judged_of(settings).values())) >= half, 30, "the first half")
    publish(settings, events[half:])
    fleet.until_pairs(expected)
    assert_same_pairs(settings, expected)
    assert_judged_completely(settings)
    for worker in workers:
        assert '"kind": "refetched"' in worker.log
        assert '"kind": "gap"' not in worker.log
        assert worker.stop() == 0


def test_positions_are_set_in_the_consumers_own_thread(settings, fleet):
    """From another one they are set while aiokafka's fetcher looks at what it has fetched."""
    watch = """
import asyncio, sys
from aiokafka import AIOKafkaConsumer
seek = AIOKafkaConsumer.seek
def watched(self, partition, offset):
    own = asyncio.get_running_loop() is self._loop
    print("position set", "in its thread" if own else "from another", file=sys.stderr, flush=True)
    seek(self, partition, offset)
AIOKafkaConsumer.seek = watched
"""
    worker = fleet.start("mine", watch)
    eventually(lambda: "position set" in worker.log, 40, "a position")
    fleet.start("mine")
    eventually(lambda: worker.log.count('"starts": {') > 1, 40, "a rebalance")
    assert "position set in its thread" in worker.log
    assert "position set from another" not in worker.log
    assert worker.stop() == 0


def test_a_send_that_fails_ends_the_judge_and_loses_nothing(settings, fleet):
    topics = Topics.of(settings)
    events = [event for number in range(6) for event in trajectory(f"t{number}", hits=40)]
    expected = mined_offline(events, settings)
    set_largest_batch(settings, topics.judged_events, 1_500)
    publish(settings, events)
    judge = fleet.start("judge")
    assert judge.wait(40) == 75
    assert "ended: The judge worker failed" in judge.log
    set_largest_batch(settings, topics.judged_events, 5_000_000)
    fleet.start("judge")
    fleet.start("mine")
    fleet.until_pairs(expected)
    assert_same_pairs(settings, expected)
    assert_judged_completely(settings)


def set_largest_batch(settings, topic, size):
    admin = AdminClient(settings.kafka())
    change = ConfigEntry(
        "max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET
    )
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])
    for answer in admin.incremental_alter_configs([resource]).values():
        answer.result(10)


def test_a_worker_that_sleeps_past_its_session_changes_nothing(settings, fleet):
    events = some_events(60)
    expected = mined_offline(events, settings)
    sleepers = [fleet.start("judge"), fleet.start("mine")]
    publish(settings, events[: len(events) // 2])
    eventually(lambda: pairs_of(settings), 40, "first pairs")
    for worker in sleepers:
        worker.process.send_signal(signal.SIGSTOP)
    publish(settings, events[len(events) // 2 :])
    heirs = [fleet.start("judge"), fleet.start("mine")]
    fleet.until_pairs(expected)
    for worker in sleepers:
        worker.process.send_signal(signal.SIGCONT)
    publish(settings, trajectory("afterwards"))
    expected |= mined_offline(trajectory("afterwards"), settings)
    fleet.until_pairs(expected)
    assert [worker.stop() for worker in (*sleepers, *heirs)] == [0, 0, 0, 0]
    assert_same_pairs(settings, expected)
    assert_judged_completely(settings)


@needs_lrat
def test_real_trajectories_become_the_pairs_that_offline_mining_gives(settings, fleet):
    expected = {pair.pair_id: pair for pair in mine(Importer("lrat").read([LRAT]), settings)}
    assert len(expected) == 14
    events = (event for part in Importer().read([LRAT]) for event in part.events)
    send(settings, [(event.trajectory_id.encode(), encode(event), []) for event in events])
    fleet.start("judge")
    fleet.start("mine")
    eventually(lambda: len(pairs_of(settings)) >= len(expected), timeout=60, what="all pairs")
    assert_same_pairs(settings, expected)
