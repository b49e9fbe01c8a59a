"""A better judge over old trajectories, while the workers of the former one go on."""

from deploy import topics as topics_module
from schemas.topics import Topics
from tests.streams.fleet import Fleet
from tests.streams.topics import assert_same_pairs, pairs_of, publish
from tests.streams.trajectories import interleaved, mined_offline, trajectory
from tests.waiting import eventually


def test_a_new_revision_mines_everything_again_beside_the_old_one(settings, fleet, tmp_path):
    plain = settings.model_copy(update={"judge": "none"})
    better = settings.model_copy(update={"judge": "local", "revision": "r2"})
    old, new = ([trajectory(f"{name}{number}") for number in range(15)] for name in ("old", "new"))
    events = [*interleaved(old), *interleaved(new)]
    expected, improved = mined_offline(events, plain), mined_offline(events, better)
    assert {pair.verdict for pair in expected.values()} == {"relevant"}
    assert {pair.verdict for pair in improved.values()} == {"relevant", "irrelevant"}
    assert not expected.keys() & improved.keys()

    publish(plain, interleaved(old))
    for role in ("judge", "mine"):
        fleet.start(role, RETRAIL_JUDGE="none")
    fleet.until_pairs(mined_offline(interleaved(old), plain))

    topics_module.ensure(better)
    logs = tmp_path / "r2"
    logs.mkdir()
    revised = Fleet(better, logs)
    try:
        for role in ("judge", "mine"):
            revised.start(role, RETRAIL_JUDGE="local")
        eventually(lambda: pairs_of(better), 40, "pairs of the new revision")
        publish(plain, interleaved(new))
        revised.until_pairs(improved)
        fleet.until_pairs(expected)
        stopped = [worker.stop() for worker in (*fleet.workers, *revised.workers)]
        assert stopped == [0, 0, 0, 0]
    finally:
        revised.kill_all()
    assert assert_same_pairs(plain, expected) == 0
    assert assert_same_pairs(better, improved) == 0
    assert Topics.of(plain).trajectory_events == Topics.of(better).trajectory_events
