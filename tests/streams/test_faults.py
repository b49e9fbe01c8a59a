"""Outages of what the workers stand on: the broker, and the judging server."""

import random
import time

import pytest

from deploy import topics as topics_module
from deploy.broker import KafkaBroker
from schemas.judged import adapter
from schemas.settings import Settings
from schemas.topics import Topics
from streams.fold import Fold, Limits
from tests.streams.chat_server import ChatServer
from tests.streams.fleet import (
    Fleet,
    assert_same_pairs,
    interleaved,
    mined_offline,
    pairs_of,
    publish,
    read,
    trajectory,
)
from tests.waiting import eventually


@pytest.fixture
def broker(tmp_path):
    """A broker of the test's own, to be taken away."""
    started = KafkaBroker(tmp_path / "kafka", tmp_path / "kafka.log")
    started.start()
    yield started
    started.stop()


@pytest.fixture
def fleet(broker, tmp_path):
    settings = Settings(
        kafka_bootstrap=broker.client_address,
        data_dir=tmp_path / "data",
        partitions=2,
        kafka_session_timeout=6.0,
    )
    topics_module.ensure(settings)
    workers = Fleet(settings, tmp_path)
    yield workers
    workers.kill_all()


def some_events(count, name="t"):
    return interleaved(trajectory(f"{name}{number}") for number in range(count))


def test_a_broker_that_goes_away_is_waited_for(broker, fleet):
    settings = fleet.settings
    before, after = some_events(30, "before"), some_events(30, "after")
    workers = [fleet.start("judge"), fleet.start("mine")]
    publish(settings, before)
    eventually(lambda: pairs_of(settings), 40, "first pairs")
    broker.child.kill()
    time.sleep(3)
    broker.start()
    publish(settings, after)
    expected = mined_offline(before + after, settings)
    fleet.until_pairs(expected)
    assert_same_pairs(settings, expected)
    assert [worker.stop() for worker in workers] == [0, 0]


def judged_offline(settings):
    """A fold done here over the judged events as they stand on the log, by pair id."""
    found = {}
    messages = read(settings, Topics.of(settings).judged_events)
    for partition in range(settings.partitions):
        fold = Fold(limits=Limits.of(settings))
        for message in messages:
            if message.partition() == partition:
                for pair in fold.apply(message.offset(), message.timestamp()[1], message.value()):
                    found[pair.pair_id] = pair.content()
    return found


def unknown_verdicts(settings):
    events = (
        adapter.validate_json(message.value())
        for message in read(settings, Topics.of(settings).judged_events)
    )
    return [event for event in events if event.type == "reasoning" and event.verdict == "unknown"]


def test_a_judging_server_that_fails_makes_the_judge_lag_and_poisons_nothing(fleet):
    """It fails in several ways, and answers by chance: asked again, it may change its mind.

    The judge is killed meanwhile, so that texts are asked about again.
    """
    settings = fleet.settings
    failing: list[object] = []
    chance = random.Random(5)

    def reply(body, number):
        return failing[0] if failing else chance.choice(("RELEVANT", "NOT_RELEVANT"))

    server = ChatServer(reply)
    variables = {
        "RETRAIL_JUDGE": "llm",
        "RETRAIL_JUDGE_URL": server.url,
        "RETRAIL_JUDGE_MODEL": "judge-7b",
        "RETRAIL_JUDGE_TIMEOUT": "1",
    }
    judge = fleet.start("judge", **variables)
    fleet.start("mine")
    events = some_events(30)
    third = len(events) // 3
    for number, failure in enumerate(((503, {}), (429, {}), 1.5)):
        failing[:] = [failure]
        asked = len(server.requests)
        publish(settings, events[number * third : (number + 1) * third])
        eventually(lambda asked=asked: len(server.requests) > asked + 3, 40, "failing questions")
        judge.kill()
        judge = fleet.start("judge", **variables)
        asked = len(server.requests)
        eventually(lambda asked=asked: len(server.requests) > asked + 3, 40, "failing questions")
        failing.clear()
        eventually(lambda so_far=number: ends_judged(settings) > 5 * so_far, 40, "judged ends")
    publish(settings, events[3 * third :])
    eventually(lambda: ends_judged(settings) == 30, 60, "end of every trajectory")
    expected = judged_offline(settings)
    assert len(expected) > 30
    fleet.until_pairs(expected)
    assert_same_pairs(settings, expected)
    assert all(event.tokens == 0 for event in unknown_verdicts(settings))
    server.close()


def ends_judged(settings):
    """How many trajectories have their end on judged-events."""
    messages = read(settings, Topics.of(settings).judged_events)
    return len({message.key() for message in messages if b'"type":"end"' in message.value()})
