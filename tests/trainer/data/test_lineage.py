"""Ranges of runs, over any history of runs, decisions, rollbacks and promotions."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import InputError
from schemas.releases import Decision, Live, Model, Release
from schemas.runs import Range, RunManifest, run_id
from trainer.data.lineage import (
    History,
    due,
    ends_of,
    first_of,
    new_ranges,
    quarantined,
    seen_ends,
    trained,
    unfinished,
    without_run,
)
from trainer.data.releases import Releases, promoted, rolled_back, shipped

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOPIC = "pairs"


def manifest(parent: int, ranges: tuple[Range, ...], version: int) -> RunManifest:
    """A release with only the fields that lineage reads; validating a whole one is slow."""
    return RunManifest.model_construct(
        run_id=run_id(parent, ranges), version=version, parent=parent, ranges=ranges
    )


class World:
    """The two topics as a trainer and an operator write them."""

    def __init__(self) -> None:
        self.history = History()
        self.written = 0
        self.ends = {0: 0, 1: 0}
        self.release(None, 1, None, "first")
        self.write(Live(version=1, why="first", changed_at=NOW))

    @property
    def releases(self) -> Releases:
        return self.history.releases

    @property
    def runs(self) -> tuple[RunManifest, ...]:
        return self.history.runs

    @property
    def live(self) -> Live | None:
        return self.releases.live

    def write(self, record: Release | Live) -> None:
        known = self.releases.with_record(record, self.written)
        self.history = replace(self.history, releases=known)
        self.written += 1

    def announce(self, manifest: RunManifest) -> None:
        self.history = self.history.announced(manifest)

    def release(
        self, run: str | None, version: int, parent: int | None, decision: Decision
    ) -> None:
        self.write(
            Release(
                version=version,
                retriever="r",
                parent=parent,
                run_id=run,
                model=Model(location="x", digest="0" * 64),
                created_at=NOW,
                decision=decision,
                reason="",
            )
        )

    def train(self, decision: Decision) -> tuple[Range, ...]:
        assert self.live is not None
        ranges = new_ranges(self.history, TOPIC, self.ends)
        run = manifest(self.live.version, ranges, self.history.next_version())
        if not ranges or self.history.run(run.run_id):
            return ()
        self.announce(run)
        self.release(run.run_id, run.version, run.parent, decision)
        live = shipped(self.releases, run.version, NOW)
        if live is not None:
            self.write(live)
        return ranges

    def rollback(self) -> None:
        self.write(rolled_back(self.releases, NOW))

    def promote(self, version: int) -> None:
        self.write(promoted(self.releases, version, NOW))


def covered(ranges: list[Range]) -> list[tuple[int, int]]:
    return [(span.partition, at) for span in ranges for at in range(span.start, span.end)]


def test_a_run_takes_the_pairs_after_the_live_lineage() -> None:
    world = World()
    world.ends = {0: 10, 1: 4}
    assert covered(list(world.train("ship"))) == covered(
        [Range(topic=TOPIC, partition=p, start=0, end=e) for p, e in ((0, 10), (1, 4))]
    )
    world.ends = {0: 10, 1: 6}
    assert world.train("ship") == (Range(topic=TOPIC, partition=1, start=4, end=6),)


def test_pairs_of_a_held_run_enter_the_next_one() -> None:
    world = World()
    world.ends = {0: 5, 1: 0}
    world.train("hold")
    assert world.train("ship") == ()
    world.ends = {0: 8, 1: 0}
    assert world.train("ship") == (Range(topic=TOPIC, partition=0, start=0, end=8),)


def test_a_rollback_quarantines_the_pairs_of_its_run() -> None:
    world = World()
    world.ends = {0: 5, 1: 0}
    world.train("ship")
    world.ends = {0: 8, 1: 0}
    world.train("ship")
    world.rollback()
    assert world.live is not None
    assert (world.live.version, world.live.previous) == (2, 3)
    assert world.train("ship") == ()
    world.ends = {0: 9, 1: 0}
    assert world.train("ship") == (Range(topic=TOPIC, partition=0, start=8, end=9),)
    assert world.live.version == 4


def test_two_rollbacks_go_back_two_releases() -> None:
    world = World()
    for end in (5, 8):
        world.ends = {0: end, 1: 0}
        world.train("ship")
    world.rollback()
    world.rollback()
    assert world.live is not None
    assert world.live.version == 1
    assert set(world.live.quarantined) == {world.runs[0].run_id, world.runs[1].run_id}
    with pytest.raises(InputError, match="first of its lineage"):
        world.rollback()


def test_promoting_a_release_takes_its_run_out_of_quarantine() -> None:
    world = World()
    world.ends = {0: 5, 1: 0}
    world.train("ship")
    world.rollback()
    world.promote(2)
    assert world.live is not None
    assert world.live.quarantined == ()
    assert covered(trained(world.history, 2)) == [(0, at) for at in range(5)]


def test_rolling_back_to_a_descendant_quarantines_nothing_of_it() -> None:
    world = World()
    for end in (5, 8):
        world.ends = {0: end, 1: 0}
        world.train("ship")
    world.promote(2)
    world.rollback()
    assert world.live is not None
    assert (world.live.version, world.live.quarantined) == (3, ())


def test_pairs_of_an_abandoned_branch_are_new_to_the_other_one() -> None:
    world = World()
    world.ends = {0: 5, 1: 0}
    world.train("ship")
    world.rollback()
    world.ends = {0: 8, 1: 0}
    world.train("ship")
    world.promote(2)
    world.promote(3)
    assert covered(trained(world.history, 3)) == [(0, at) for at in range(5, 8)]
    assert world.train("ship") == (Range(topic=TOPIC, partition=0, start=0, end=5),)


def test_promoting_an_unknown_release_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no release 7\. Releases: 1\."):
        World().promote(7)


def test_promoting_the_live_release_changes_nothing() -> None:
    world = World()
    assert promoted(world.releases, 1, NOW) == world.live


def test_a_topic_new_to_the_lineage_starts_at_zero() -> None:
    world = World()
    world.ends = {0: 5, 1: 0}
    world.train("ship")
    assert new_ranges(world.history, "pairs-b", {0: 3}) == (
        Range(topic="pairs-b", partition=0, start=0, end=3),
    )


def test_a_release_does_not_ship_once_its_parent_is_not_live() -> None:
    world = World()
    world.ends = {0: 5, 1: 0}
    world.train("hold")
    world.promote(2)
    world.release("a" * 32, 9, 1, "ship")
    assert shipped(world.releases, 9, NOW) is None


def test_a_repeat_does_not_undo_a_rollback() -> None:
    world = World()
    world.ends = {0: 5, 1: 0}
    world.train("ship")
    world.rollback()
    assert shipped(world.releases, 2, NOW) is None


def test_the_first_of_two_manifests_of_one_run_counts() -> None:
    world = World()
    world.ends = {0: 5, 1: 0}
    world.train("hold")
    first = world.runs[0]
    world.announce(first.model_copy(update={"version": 3}))
    assert world.history.last() == first
    assert first.version == 2
    assert not unfinished(world.history, first)


def test_the_first_of_two_manifests_of_one_version_counts() -> None:
    world = World()
    world.ends = {0: 5, 1: 0}
    world.train("hold")
    other = manifest(1, (Range(topic=TOPIC, partition=0, start=0, end=9),), 2)
    world.announce(other)
    assert world.history.run(other.run_id) is None
    assert world.history.next_version() == 3


def test_the_next_version_is_one_above_the_highest_run_or_release() -> None:
    world = World()
    assert world.history.next_version() == 2
    world.announce(manifest(1, (), 7))
    assert world.history.next_version() == 8
    world.release("a" * 32, 9, 1, "hold")
    assert world.history.next_version() == 10


def test_a_run_without_its_manifest_is_named() -> None:
    world = World()
    world.ends = {0: 5, 1: 0}
    world.train("ship")
    assert without_run(world.history, 2) == []
    assert without_run(History((), world.releases), 2) == [world.releases.by_version[2]]
    assert without_run(History((), world.releases), 1) == []
    assert first_of(world.history, 2) == 2
    assert first_of(History((), world.releases), 2) == 1


@pytest.mark.parametrize(
    ("parent", "version", "why"),
    [
        (7, 2, "its parent, release 7, does not exist"),
        (1, 2**31 - 1, "more than 100 above the highest"),
        (1, 102, "more than 100 above the highest, 1"),
    ],
)
def test_a_manifest_of_another_program_is_refused(parent: int, version: int, why: str) -> None:
    world = World()
    foreign = manifest(parent, (), version)

    assert why in world.history.refusal(foreign)
    world.announce(foreign)

    assert world.runs == ()
    assert world.history.next_version() == 2


def test_a_range_beyond_the_end_of_its_partition_does_not_stop_the_triggers() -> None:
    world = World()
    world.ends = {0: 10, 1: 4}
    world.train("hold")
    beyond = Range(topic=TOPIC, partition=0, start=0, end=2**62)
    world.announce(manifest(1, (beyond,), 3))

    assert seen_ends(world.history, TOPIC, world.ends) == {0: 10, 1: 4}


@pytest.mark.parametrize(
    ("count", "oldest", "expected"),
    [
        (0, None, None),
        (9, 995_000, None),
        (10, 999_999, "count"),
        (1, 940_000, "age"),
        (1, 940_001, None),
    ],
)
def test_a_run_is_due_by_count_or_age(count: int, oldest: int | None, expected: str | None) -> None:
    found = due(count, oldest, 1_000_000, min_pairs=10, max_age_seconds=60)
    assert found == expected


actions = st.lists(
    st.one_of(
        st.tuples(st.just("pairs"), st.integers(0, 1), st.integers(1, 5)),
        st.tuples(st.just("train"), st.sampled_from(["ship", "hold", "reject"]), st.none()),
        st.tuples(st.just("rollback"), st.none(), st.none()),
        st.tuples(st.just("promote"), st.integers(1, 12), st.none()),
    ),
    max_size=30,
)


@settings(max_examples=1000)
@given(actions)
def test_each_pair_is_new_exactly_once_in_a_lineage(script: list[tuple[str, ...]]) -> None:
    world = World()
    for name, first, second in script:
        try:
            match name:
                case "pairs":
                    world.ends[first] += second  # type: ignore[index, operator]
                case "train":
                    world.train(first)  # type: ignore[arg-type]
                case "rollback":
                    world.rollback()
                case "promote":
                    world.promote(first)  # type: ignore[arg-type]
        except InputError:
            continue
        assert world.live is not None
        learned = covered(trained(world.history, world.live.version))
        aside = set(covered(quarantined(world.history)))
        new = covered(list(new_ranges(world.history, TOPIC, world.ends)))
        everything = {(p, at) for p, end in world.ends.items() for at in range(end)}
        assert len(learned) == len(set(learned)), "learned from twice"
        assert not set(learned) & set(new), "new again"
        assert not aside & set(new), "out of quarantine by itself"
        assert set(learned) | aside | set(new) == everything, "lost"
        seen = seen_ends(world.history, TOPIC, world.ends)
        assert all(
            seen.get(p, 0) >= end
            for p, end in ends_of(trained(world.history, world.live.version), TOPIC).items()
        )
