"""Decisions about builds: every combination of the facts, and comparison as a property."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from consumers.indexing import build_plan
from consumers.indexing.build_plan import ROLES, Difference, Facts
from schemas.collection import Build

GRACE = 60.0


def build(version: int, *, served: bool = False, build_id: str | None = None) -> Build:
    return Build(f"r_v{version}", version, build_id or f"{version:08x}", "m", "d", served)


def hybrid(version: int, *, served: bool = False, generation: int = 1) -> Build:
    name = f"r_v{version}_hybrid"
    return Build(name, version, f"{version:08x}b", "m", "d", served, "hybrid", generation)


def facts(*builds: Build, live: int | None, aliased: int | None, **others: object) -> Facts:
    values = {"retired": {}, "now": 1000.0, "grace": GRACE} | others
    return Facts(live, f"r_v{aliased}" if aliased else None, builds, **values)  # type: ignore[arg-type]


def test_roles_cover_every_combination() -> None:
    assert len(ROLES) == 8
    assert build_plan.role(build(2), build(2), "r_v2") == "serving"
    assert build_plan.role(build(2), build(2), "r_v1") == "next"
    assert build_plan.role(build(1, served=True), build(2), "r_v1") == "outgoing"
    assert build_plan.role(build(1, served=True), build(2), "r_v2") == "retired"
    assert build_plan.role(build(3), build(2), "r_v2") == "abandoned"


def test_first_start_creates_the_live_version() -> None:
    plan = build_plan.plan(facts(live=1, aliased=None))
    assert (plan.create, plan.follow, plan.drop) == (1, (), ())


def test_nothing_is_created_or_dropped_without_a_live_release() -> None:
    plan = build_plan.plan(facts(build(1, served=True), build(2), live=None, aliased=1))
    assert (plan.create, plan.drop) == (None, ())


def test_a_new_live_release_is_built_beside_the_one_that_serves() -> None:
    one = build(1, served=True)
    plan = build_plan.plan(facts(one, live=2, aliased=1))
    assert (plan.create, plan.follow, plan.drop) == (2, (one,), ())


def test_a_release_superseded_during_its_build_is_dropped_at_once() -> None:
    one, two = build(1, served=True), build(2)
    plan = build_plan.plan(facts(one, two, live=3, aliased=1))
    assert (plan.create, plan.follow, plan.drop) == (3, (one,), (two,))


def test_a_retired_build_is_kept_for_the_grace_time() -> None:
    one, two = build(1, served=True), build(2, served=True)
    found = facts(one, two, live=2, aliased=2)
    assert build_plan.retired_since(found) == {one.build_id: 1000.0}
    assert build_plan.plan(found).follow == (one, two)
    for now, dropped in ((1059.9, ()), (1060.0, (one,))):
        later = facts(one, two, live=2, aliased=2, retired={one.build_id: 1000.0}, now=now)
        assert build_plan.plan(later).drop == dropped


def test_a_rollback_is_a_swap_and_resets_the_grace_time() -> None:
    one, two = build(1, served=True), build(2, served=True)
    found = facts(one, two, live=1, aliased=2, retired={one.build_id: 1.0})
    plan = build_plan.plan(found)
    assert (plan.create, plan.follow, plan.drop) == (None, (one, two), ())
    assert build_plan.retired_since(found) == {}


def test_a_collection_made_again_is_another_build() -> None:
    again = build(1, served=True, build_id="ffffffff")
    found = facts(again, build(2, served=True), live=2, aliased=2, retired={"00000001": 0.0})
    assert build_plan.retired_since(found) == {"ffffffff": 1000.0}


def test_another_search_mode_is_built_beside_the_build_that_serves() -> None:
    one = build(1, served=True)
    plan = build_plan.plan(facts(one, live=1, aliased=1, search="hybrid"))
    assert (plan.target, plan.create, plan.drop) == (one, 1, ())
    beside = hybrid(1)
    plan = build_plan.plan(facts(one, beside, live=1, aliased=1, search="hybrid"))
    assert (plan.target, plan.create, plan.follow) == (beside, None, (one, beside))


def test_a_build_under_way_is_completed_before_another_mode_is_built() -> None:
    for builds in ((build(1),), (build(1, served=True), build(2, served=True))):
        plan = build_plan.plan(facts(*builds, live=1, aliased=2, search="hybrid"))
        assert (plan.target, plan.create) == (builds[0], None)


def test_workers_whose_modes_differ_agree_and_rebuild_once_a_grace_time() -> None:
    old, new = build(1, served=True), hybrid(1, served=True)
    for mode in ("dense", "hybrid"):
        under_way = facts(old, hybrid(1), live=1, aliased=1, search=mode)
        assert build_plan.plan(under_way).target == hybrid(1)
        swapped = replace(facts(old, new, live=1, aliased=1, search=mode), aliased=new.collection)
        plan = build_plan.plan(swapped)
        assert (plan.target, plan.create, plan.drop) == (new, None, ())
        later = replace(swapped, retired=build_plan.retired_since(swapped), now=1060.0)
        assert build_plan.plan(later).drop == (old,)
    after = replace(facts(new, live=1, aliased=1, search="dense"), aliased=new.collection)
    assert build_plan.plan(after).create == 1


def test_a_group_has_passed_when_every_partition_with_records_has() -> None:
    ends = {0: (0, 5), 1: (0, 0), 2: (3, 3), 3: (2, 9)}
    assert build_plan.has_passed({0: 5, 3: 9}, ends)
    assert build_plan.has_passed({0: 7, 1: 0, 2: 3, 3: 9}, ends)
    assert not build_plan.has_passed({0: 5}, ends)
    assert not build_plan.has_passed({0: 4, 3: 9}, ends)
    assert build_plan.remaining({0: 4}, ends) == 1 + 7


def test_groups_of_other_retrievers_and_roles_are_no_orphans() -> None:
    prefix = build_plan.group_prefix("p_retrail-index", "r")
    kept = build(2)
    groups = [
        build_plan.group(prefix, kept),
        "p_retrail-index-r_v1-0a1b2c3d",
        "p_retrail-index-r_v1_v3-0a1b2c3d",
        "p_retrail-index-other_v1-0a1b2c3d",
        "p_retrail-index",
        "p_retrail-index-dead-letters",
        "retrail-index-r_v1-0a1b2c3d",
    ]
    assert build_plan.orphaned(groups, prefix, [kept]) == ["p_retrail-index-r_v1-0a1b2c3d"]


hashes = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("xyz"))


@given(expected=hashes, rows=hashes, ignoring=st.frozensets(st.sampled_from("abcdef")))
def test_repairing_what_a_comparison_finds_makes_both_sides_equal(
    expected: dict[str, str], rows: dict[str, str], ignoring: frozenset[str]
) -> None:
    found = build_plan.compare(expected, rows, ignoring)
    assert not (found.upserts | found.deletes) & ignoring
    repaired = {k: v for k, v in rows.items() if k not in found.deletes}
    repaired |= {k: expected[k] for k in found.upserts}
    assert not build_plan.compare(expected, repaired, ignoring)
    assert {k: v for k, v in repaired.items() if k not in ignoring} == {
        k: v for k, v in expected.items() if k not in ignoring
    }


def test_equal_sides_need_no_repair() -> None:
    assert build_plan.compare({"a": "x"}, {"a": "x"}) == Difference(frozenset(), frozenset())
