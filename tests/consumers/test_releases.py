"""Releases on the topic, and what an operator does with them (rules: test_lineage.py)."""

from datetime import UTC, datetime

import pytest

from consumers import releases
from consumers.releases import Releases
from retrail_runtime import kafka
from schemas.errors import InputError
from schemas.releases import Live, Model, Release
from schemas.settings import Settings
from schemas.topics import Topics

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def release(version: int, parent: int | None = None) -> Release:
    return Release(
        version=version,
        retriever="r",
        parent=parent,
        run_id=f"{version:032x}" if parent else None,
        model=Model(location=f"r/v{version}", digest="0" * 64),
        created_at=NOW,
        queries=0,
        decision="ship" if parent else "first",
        reason="",
    )


@pytest.fixture
def written(settings: Settings, topics: Topics) -> Settings:
    producer = kafka.producer(settings)
    for one in (release(1), release(2, 1), release(3, 2)):
        releases.write_release(producer, settings, one)
    for version in (1, 2):
        releases.write_live(producer, settings, Live(version=version, why="", changed_at=NOW))
    return settings


def test_what_is_written_is_read(written: Settings) -> None:
    found = releases.read(written)
    assert found.by_version == {1: release(1), 2: release(2, 1), 3: release(3, 2)}
    assert found.live is not None
    assert (found.live.version, found.live_offset, found.next_offset) == (2, 4, 5)
    assert found.lineage(3) == (3, 2, 1)


def test_only_what_is_new_is_read_again(written: Settings) -> None:
    before = releases.read(written)
    releases.write_release(kafka.producer(written), written, release(4, 2))
    after = releases.read(written, before)
    assert after.by_version == {**before.by_version, 4: release(4, 2)}
    assert after == releases.read(written)


def test_malformed_records_are_passed_over(written: Settings) -> None:
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


def test_promoting_what_is_live_writes_nothing(written: Settings) -> None:
    before = releases.read(written)
    assert releases.promote(written, 2) == before.live
    assert releases.read(written) == before


def test_nothing_to_roll_back(settings: Settings, topics: Topics) -> None:
    with pytest.raises(InputError, match="no live release yet"):
        releases.rollback(settings)


def test_a_cycle_of_parents_ends() -> None:
    found = Releases({1: release(1, 2), 2: release(2, 1)})
    assert found.lineage(1) == (1, 2)
