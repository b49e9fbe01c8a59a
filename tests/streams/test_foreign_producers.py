"""What producers of any make may write: every codec, and transactions."""

from streams.loop.faust_private import CODECS
from tests.streams.topics import assert_same_pairs, publish
from tests.streams.trajectories import mined_offline, some_events


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
