"""Outages of what the workers stand on: the broker, and the judging server."""

import random
import time

from schemas.judged import adapter
from schemas.topics import Topics
from tests.streams.topics import assert_same_pairs, judged_offline, pairs_of, publish, read
from tests.streams.trajectories import mined_offline, some_events
from tests.waiting import eventually


def test_a_broker_that_goes_away_is_waited_for(own_broker, own_fleet):
    fleet, settings = own_fleet, own_fleet.settings
    before, after = some_events(30, "before"), some_events(30, "after")
    workers = [fleet.start("judge"), fleet.start("mine")]
    publish(settings, before)
    eventually(lambda: pairs_of(settings), 40, "first pairs")
    own_broker.child.kill()
    time.sleep(3)
    own_broker.start()
    publish(settings, after)
    expected = mined_offline(before + after, settings)
    fleet.until_pairs(expected)
    assert_same_pairs(settings, expected)
    assert [worker.stop() for worker in workers] == [0, 0]


def unknown_verdicts(settings):
    events = (
        adapter.validate_json(message.value())
        for message in read(settings, Topics.of(settings).judged_events)
    )
    return [event for event in events if event.type == "reasoning" and event.verdict == "unknown"]


def test_a_judging_server_that_fails_makes_the_judge_lag_and_poisons_nothing(
    settings, fleet, serve
):
    """It fails in several ways, and answers by chance: asked again, it may change its mind.

    The judge is killed meanwhile, so that texts are asked about again.
    """
    failing: list[object] = []
    chance = random.Random(5)

    def reply(body, number):
        return failing[0] if failing else chance.choice(("RELEVANT", "NOT_RELEVANT"))

    server = serve(reply)
    judge = fleet.start("judge", **server.variables)
    fleet.start("mine")
    events = some_events(30)
    third = len(events) // 3
    for number, failure in enumerate(((503, {}), (429, {}), 1.5)):
        failing[:] = [failure]
        asked = len(server.requests)
        publish(settings, events[number * third : (number + 1) * third])
        eventually(lambda asked=asked: len(server.requests) > asked + 3, 40, "failing questions")
        judge.kill()
        judge = fleet.start("judge", **server.variables)
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


def ends_judged(settings):
    """How many trajectories have their end on judged-events."""
    messages = read(settings, Topics.of(settings).judged_events)
    return len({message.key() for message in messages if b'"type":"end"' in message.value()})
