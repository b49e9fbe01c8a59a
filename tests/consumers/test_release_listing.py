"""What a release came of, of plain values."""

from consumers.release_listing import listed
from consumers.releases import Releases
from schemas.releases import Live, Release
from tests.trained import NOW, a_manifest, a_release, run_of


def known(live: Live | None, *made: Release) -> Releases:
    return Releases({one.version: one for one in made}, {}, live)


def test_every_release_has_a_state_and_a_lineage() -> None:
    live = Live(version=3, previous=2, why="", changed_at=NOW, quarantined=(run_of(4),))
    found = listed(
        known(
            live,
            a_release(1, None, "first"),
            a_release(2, 1, "ship"),
            a_release(3, 2, "ship"),
            a_release(4, 3, "ship"),
            a_release(5, 3, "hold"),
            a_release(6, 2, "pending"),
            a_release(7, 3, "pending"),
        ),
        {run_of(2): a_manifest(2)},
    )

    assert [(one.release.version, one.state, one.lineage) for one in found] == [
        (1, "lineage", (1,)),
        (2, "lineage", (2, 1)),
        (3, "live", (3, 2, 1)),
        (4, "quarantined", (4, 3, 2, 1)),
        (5, "aside", (5, 3, 2, 1)),
        (6, "aside", (6, 2, 1)),
        (7, "waiting", (7, 3, 2, 1)),
    ]
    assert [bool(one.ranges) for one in found] == [False, True] + 5 * [False]


def test_without_a_live_release_nothing_waits() -> None:
    [one] = listed(known(None, a_release(2, 1, "pending")), {})
    assert one.state == "aside"


def test_as_plain_values_a_release_goes_down_to_offsets() -> None:
    found = listed(
        known(None, a_release(1, None, "first"), a_release(2, 1, "ship")),
        {run_of(2): a_manifest(2)},
    )
    first, second = (one.to_json() for one in found)

    assert first["run"] is None
    assert "parent" not in first
    assert second["lineage"] == [2, 1]
    assert (second["difference"], second["interval"]) == (0.02, [-0.01, 0.05])
    run = second["run"]
    assert (run["pairs"], run["replayed"], run["left_out"]) == (2, 1, {"held out": 4})
    assert run["ranges"] == [{"topic": "labelled-pairs", "partition": 1, "start": 7, "end": 12}]
    assert "pair_ids" not in run
