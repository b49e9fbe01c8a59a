"""Releases on the topic, promotion and rollback (rules: test_lineage.py)."""

import pytest

from consumers import releases
from consumers.releases import listed
from retrail_runtime import kafka
from schemas.errors import InputError
from schemas.releases import Live, Model, Release
from schemas.settings import Settings
from schemas.topics import Topics
from tests.trained import NOW, a_decision, a_manifest, a_release, run_of
from trainer.data.lineage import History
from trainer.data.releases import Releases


def release(version: int, parent: int | None = None) -> Release:
    return Release(
        version=version,
        retriever="r",
        parent=parent,
        run_id=f"{version:032x}" if parent else None,
        model=Model(location=f"r/v{version}", digest="0" * 64),
        created_at=NOW,
        decision="ship" if parent else "first",
        reason="",
    )


@pytest.fixture
def written(settings: Settings, topics: Topics) -> Settings:
    producer = kafka.producer(settings)
    releases.write_release(producer, settings, release(1))
    releases.write_live(producer, settings, Live(version=1, why="", changed_at=NOW))
    for one in (release(2, 1), release(3, 2)):
        releases.write_release(producer, settings, one)
    releases.write_live(producer, settings, Live(version=2, why="", changed_at=NOW))
    return settings


def test_written_records_are_read(written: Settings) -> None:
    found = releases.read(written)
    assert found.by_version == {1: release(1), 2: release(2, 1), 3: release(3, 2)}
    assert found.live is not None
    assert (found.live.version, found.live_offset, found.next_offset) == (2, 4, 5)
    assert found.lineage(3) == (3, 2, 1)


def test_only_new_records_are_read(written: Settings) -> None:
    before = releases.read(written)
    releases.write_release(kafka.producer(written), written, release(4, 2))
    after = releases.read(written, before)
    assert after.by_version == {**before.by_version, 4: release(4, 2)}
    assert after == releases.read(written)


def test_malformed_records_are_skipped(written: Settings) -> None:
    before = releases.read(written)
    topic = Topics.of(written).retriever_releases
    value = release(9, 1).to_json()
    kafka.send_all(
        kafka.producer(written),
        topic,
        [(b"live", b"{"), (b"7", b"[]"), (b"8", value), (b"3", None)],
    )
    after = releases.read(written)
    assert (after.by_version, after.live) == (before.by_version, before.live)
    assert after.next_offset == before.next_offset + 4


def test_promote_and_rollback(written: Settings) -> None:
    promoted = releases.promote(written, 3)
    assert (promoted.version, promoted.previous) == (3, 2)
    assert releases.read(written).live == promoted
    back = releases.rollback(written)
    assert (back.version, back.previous, back.quarantined) == (2, 3, (f"{3:032x}",))
    assert releases.read(written).live == back


def test_promoting_the_live_release_writes_nothing(written: Settings) -> None:
    before = releases.read(written)
    assert releases.promote(written, 2) == before.live
    assert releases.read(written) == before


def test_a_rollback_without_a_release_is_an_error(settings: Settings, topics: Topics) -> None:
    with pytest.raises(InputError, match="no live release yet"):
        releases.rollback(settings)


def test_a_cycle_of_parents_terminates() -> None:
    found = Releases({1: release(1, 2), 2: release(2, 1)})
    assert found.lineage(1) == (1, 2)


def history(live: Live | None, *made: Release, pending: tuple[int, ...] = ()) -> History:
    found = {one.version: one for one in made}
    decisions = {version: a_decision(version, "pending") for version in pending}
    offsets = {version: version for version in found}
    return History((a_manifest(2),), Releases(found, offsets, live, decisions=decisions))


def test_every_release_has_a_state_and_a_lineage() -> None:
    live = Live(version=3, previous=2, why="", changed_at=NOW, quarantined=(run_of(4),))
    found = listed(
        history(
            live,
            a_release(1, None, "first"),
            a_release(2, 1, "ship"),
            a_release(3, 2, "ship"),
            a_release(4, 3, "ship"),
            a_release(5, 3, "hold"),
            a_release(6, 2, "ship", candidate=True),
            a_release(7, 3, "ship", candidate=True),
            a_release(8, 3, "ship", candidate=True),
            pending=(6, 7),
        )
    )

    assert [(one.release.version, one.state, one.lineage) for one in found] == [
        (1, "lineage", (1,)),
        (2, "lineage", (2, 1)),
        (3, "live", (3, 2, 1)),
        (4, "quarantined", (4, 3, 2, 1)),
        (5, "other", (5, 3, 2, 1)),
        (6, "superseded", (6, 2, 1)),
        (7, "waiting", (7, 3, 2, 1)),
        (8, "open", (8, 3, 2, 1)),
    ]
    assert [one.decision for one in found[4:]] == ["hold", "pending", "pending", "candidate"]
    assert [one.manifest is not None for one in found] == [False, True] + 6 * [False]


def test_without_a_live_release_none_is_waiting() -> None:
    [one] = listed(history(None, a_release(2, 1, "ship", candidate=True), pending=(2,)))
    assert one.state == "superseded"


def test_the_json_of_a_release_has_its_run_and_offsets() -> None:
    found = listed(history(None, a_release(1, None, "first"), a_release(2, 1, "ship")))
    first, second = (one.to_json() for one in found)

    assert first["run"] is None
    assert "parent" not in first
    assert second["lineage"] == [2, 1]
    compared = second["held_out"]
    assert (compared["difference"], compared["interval"]) == (0.02, [-0.01, 0.05])
    run = second["run"]
    assert (run["pairs"], run["replayed"], run["left_out"]) == (2, 1, {"held out": 4})
    assert run["ranges"] == [{"topic": "labelled-pairs", "partition": 1, "start": 7, "end": 12}]
