"""What producers of any make may write: every codec, and transactions."""

from streams.loop.faust_private import CODECS
from tests.streams.topics import Transactions, assert_same_pairs, judged_of, publish, ticks_of
from tests.streams.trajectories import interleaved, mined_offline, some_events, trajectory
from tests.waiting import eventually


def test_every_codec_is_read(settings, fleet):
    """Case 12: one batch of snappy, lz4 or zstd must not stop the judge."""
    judge = fleet.start("judge")
    fleet.start("mine")
    published = []
    for codec in CODECS:
        events = some_events(2, codec)
        publish(settings, events, compression_type=codec)
        published += events
    expected = mined_offline(published, settings)
    fleet.until_pairs(expected)
    assert assert_same_pairs(settings, expected) == 0
    assert judge.stop() == 0


def test_aborted_transactions_give_nothing(settings, fleet):
    """Case: two trajectories in aborted transactions gave their pairs."""
    transactions = Transactions(settings, "aborts")
    for name in ("aborted", "aborted too"):
        transactions.abort(trajectory(name))
    judge, _ = fleet.start("judge"), fleet.start("mine")
    transactions.commit(trajectory("committed"))
    transactions.abort(trajectory("aborted last"))
    expected = mined_offline(trajectory("committed"), settings)
    fleet.until_pairs(expected)
    eventually(lambda: set(ticks_of(settings)) == {0, 1}, 20, "a tick on every partition")
    assert assert_same_pairs(settings, expected) == 0
    judged = [event for events in judged_of(settings).values() for event in events]
    assert {event.trajectory_id for event in judged} == {"committed"}
    assert "offsets are not continuous" not in judge.log
    assert judge.stop() == 0


def test_committed_transactions_cost_no_warning_and_no_seek(settings, fleet):
    """Case: 300 transactions of one trajectory each cost 600 warnings, and a seek each."""
    transactions = Transactions(settings, "many")
    workers = [fleet.start("judge"), fleet.start("mine")]
    trajectories = [trajectory(f"t{number}", needs=1) for number in range(300)]
    for events in trajectories:
        transactions.commit(events)
    expected = mined_offline(interleaved(trajectories), settings)
    fleet.until_pairs(expected)
    eventually(lambda: set(ticks_of(settings)) == {0, 1}, 20, "a tick on every partition")
    assert assert_same_pairs(settings, expected) == 0
    for worker in workers:
        assert worker.sample("retrail_offset_discontinuities_total") == 0
        assert "offsets are not continuous" not in worker.log
        assert worker.sample("retrail_consumer_lag_records") == 0
    assert [worker.stop() for worker in workers] == [0, 0]


def test_an_open_transaction_holds_back_what_stands_behind_it_and_shows(settings, fleet):
    transactions = Transactions(settings, "open", transaction_timeout_ms=60_000)
    opened, behind = trajectory("opened"), trajectory("behind 3")
    transactions.begin(opened)
    publish(settings, behind)
    judge, _ = fleet.start("judge"), fleet.start("mine")

    def shown():
        return judge.ports and judge.sample("retrail_consumer_open_transaction_seconds") > 2

    eventually(shown, 40, "the age of the transaction")
    assert judged_of(settings) == {}
    assert judge.sample("retrail_consumer_lag_records") == 0
    transactions.producer.commit_transaction(30)
    expected = mined_offline(opened + behind, settings)
    fleet.until_pairs(expected)
    assert assert_same_pairs(settings, expected) == 0
    eventually(
        lambda: judge.sample("retrail_consumer_open_transaction_seconds") == 0, 10, "no transaction"
    )
    assert judge.stop() == 0
