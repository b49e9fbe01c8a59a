"""Decisions about builds: every combination of the facts, and comparison as a property."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from consumers.indexing import plan as planning
from consumers.indexing.plan import ROLES, Assignment, Difference, Facts
from retrail_runtime.milvus import Build

GRACE = 60.0


def build(version: int, *, served: bool = False, build_id: str | None = None) -> Build:
    return Build(f"r_v{version}", version, build_id or f"{version:08x}", "m", "d", served)


def rebuilt(version: int, build_id: str, *, successor: str = "", served: bool = False) -> Build:
    name = f"r_v{version}_{build_id}"
    return Build(name, version, build_id, "m", "d", served, successor=successor)


def facts(*builds: Build, live: int | None, aliased: int | None, **others: object) -> Facts:
    values = {"retired": {}, "now": 1000.0, "grace": GRACE} | others
    return Facts(live, f"r_v{aliased}" if aliased else None, builds, **values)  # type: ignore[arg-type]


def test_roles_cover_every_combination() -> None:
    assert len(ROLES) == 12
    assert planning.role(build(2), build(1), "r_v1", build(2)) == "candidate"
    assert planning.role(build(2), build(1), "r_v2", build(2)) == "outgoing"
    assert planning.role(build(2), build(2), "r_v1", build(2)) == "next"
    assert planning.role(build(2), build(2), "r_v2") == "serving"
    assert planning.role(build(2), build(2), "r_v1") == "next"
    assert planning.role(build(1, served=True), build(2), "r_v1") == "outgoing"
    assert planning.role(build(1, served=True), build(2), "r_v2") == "retired"
    assert planning.role(build(3), build(2), "r_v2") == "abandoned"


def test_first_start_creates_the_live_version() -> None:
    plan = planning.plan(facts(live=1, aliased=None))
    assert (plan.create, plan.follow, plan.drop) == (1, (), ())


def test_nothing_is_created_or_dropped_without_a_live_release() -> None:
    plan = planning.plan(facts(build(1, served=True), build(2), live=None, aliased=1))
    assert (plan.create, plan.drop) == (None, ())


def test_a_new_live_release_is_built_beside_the_one_that_serves() -> None:
    one = build(1, served=True)
    plan = planning.plan(facts(one, live=2, aliased=1))
    assert (plan.create, plan.follow, plan.drop) == (2, (one,), ())


def test_a_release_superseded_during_its_build_is_dropped_at_once() -> None:
    one, two = build(1, served=True), build(2)
    plan = planning.plan(facts(one, two, live=3, aliased=1))
    assert (plan.create, plan.follow, plan.drop) == (3, (one,), (two,))


def test_a_retired_build_is_kept_for_the_grace_time() -> None:
    one, two = build(1, served=True), build(2, served=True)
    found = facts(one, two, live=2, aliased=2)
    assert planning.retired_since(found) == {one.build_id: 1000.0}
    assert planning.plan(found).follow == (one, two)
    for now, dropped in ((1059.9, ()), (1060.0, (one,))):
        later = facts(one, two, live=2, aliased=2, retired={one.build_id: 1000.0}, now=now)
        assert planning.plan(later).drop == dropped


def test_a_rollback_is_a_swap_and_resets_the_grace_time() -> None:
    one, two = build(1, served=True), build(2, served=True)
    found = facts(one, two, live=1, aliased=2, retired={one.build_id: 1.0})
    plan = planning.plan(found)
    assert (plan.create, plan.follow, plan.drop) == (None, (one, two), ())
    assert planning.retired_since(found) == {}


def test_a_collection_made_again_is_another_build() -> None:
    again = build(1, served=True, build_id="ffffffff")
    found = facts(again, build(2, served=True), live=2, aliased=2, retired={"00000001": 0.0})
    assert planning.retired_since(found) == {"ffffffff": 1000.0}


def test_a_rebuild_is_built_beside_the_build_that_serves_and_replaces_it() -> None:
    one = replace(build(1, served=True), successor="aaaa0001")
    requested = planning.plan(facts(one, live=1, aliased=1))
    assert (requested.target, requested.create, requested.follow, requested.drop) == (
        one,
        1,
        (one,),
        (),
    )
    two = rebuilt(1, "aaaa0001")
    under_way = planning.plan(facts(one, two, live=1, aliased=1))
    assert (under_way.target, under_way.create, under_way.follow) == (two, None, (one, two))
    served = replace(two, served=True)
    swapped = replace(facts(one, served, live=1, aliased=1), aliased=two.collection)
    assert planning.retired_since(swapped) == {one.build_id: 1000.0}
    later = replace(swapped, retired={one.build_id: 1000.0}, now=1060.0)
    assert (planning.plan(later).target, planning.plan(later).drop) == (served, (one,))


def test_a_rebuild_that_is_lost_is_created_again_while_the_build_before_serves() -> None:
    one = replace(build(1, served=True), successor="aaaa0001")
    plan = planning.plan(facts(one, live=1, aliased=None))
    assert (plan.target, plan.create) == (one, 1)


def test_a_rebuild_of_a_build_under_way_supersedes_it() -> None:
    one, two = build(1, served=True), replace(build(2), successor="aaaa0001")
    plan = planning.plan(facts(one, two, rebuilt(2, "aaaa0001"), live=2, aliased=1))
    assert (plan.target, plan.create, plan.drop) == (rebuilt(2, "aaaa0001"), None, (two,))


def test_a_rollback_to_a_version_that_was_rebuilt_is_a_swap_to_the_rebuild() -> None:
    one = replace(build(1, served=True), successor="aaaa0001")
    again, two = rebuilt(1, "aaaa0001", served=True), build(2, served=True)
    plan = planning.plan(facts(one, again, two, live=1, aliased=2))
    assert (plan.target, plan.create) == (again, None)


ids = st.sampled_from(["aaaa0000", "aaaa0001", "aaaa0002", "aaaa0003"])


@given(successors=st.dictionaries(ids, st.one_of(st.just(""), ids), min_size=1), data=st.data())
def test_plans_end_after_any_requests_for_rebuilds(
    successors: dict[str, str], data: st.DataObject
) -> None:
    """Also after requests at the same moment: one build is left, and nothing is created on."""
    order = sorted(successors)
    # A successor is requested after its predecessor was created, so there are no cycles.
    builds = {
        name: rebuilt(1, name, served=True, successor=after if after > name else "")
        for name, after in ((name, successors[name]) for name in order)
    }
    aliased = builds[data.draw(st.sampled_from(order))].collection
    for step in range(20):
        now = facts(*builds.values(), live=1, aliased=None, now=1000.0 * step)
        now = replace(now, aliased=aliased, retired=dict.fromkeys(builds, now.now - 2 * GRACE))
        plan = planning.plan(now)
        assert plan.target is not None
        if plan.create is None and aliased == plan.target.collection and not plan.drop:
            break
        for dropped in plan.drop:
            assert dropped.collection != aliased
            del builds[dropped.build_id]
        if plan.create is not None:
            created = plan.target.successor
            assert created not in builds
            builds[created] = rebuilt(1, created)
        else:
            aliased = plan.target.collection
            builds[plan.target.build_id] = replace(plan.target, served=True)
    else:
        raise AssertionError("the plans do not come to an end")
    assert len(builds) == 1


def test_a_candidate_is_built_beside_the_live_release_and_dropped_when_it_is_over() -> None:
    one = build(1, served=True)
    plan = planning.plan(facts(one, live=1, aliased=1, candidate=2))
    assert (plan.target, plan.candidate, plan.create) == (one, None, 2)
    two = build(2)
    plan = planning.plan(facts(one, two, live=1, aliased=1, candidate=2))
    assert (plan.candidate, plan.create, plan.follow, plan.drop) == (two, None, (one, two), ())
    plan = planning.plan(facts(one, two, live=1, aliased=1, candidate=None))
    assert (plan.create, plan.follow, plan.drop) == (None, (one,), (two,))
    plan = planning.plan(facts(one, two, live=2, aliased=1, candidate=None))
    assert (plan.target, plan.create, plan.drop) == (two, None, ())


def test_a_candidate_is_built_again_in_place_of_the_first_build() -> None:
    one, two = build(1, served=True), replace(build(2), successor="aaaa0001")
    plan = planning.plan(facts(one, two, live=1, aliased=1, candidate=2))
    assert (plan.create, plan.successor, plan.drop) == (2, "aaaa0001", ())
    again = rebuilt(2, "aaaa0001")
    plan = planning.plan(facts(one, two, again, live=1, aliased=1, candidate=2))
    assert (plan.candidate, plan.create, plan.drop) == (again, None, (two,))


def test_the_live_collection_is_created_before_the_candidates() -> None:
    plan = planning.plan(facts(live=1, aliased=None, candidate=2))
    assert (plan.create, plan.successor) == (1, "")


def test_a_candidate_is_coordinated_only_while_the_live_release_serves() -> None:
    one, two = build(1, served=True), build(2)

    def coordinated(undecided: int | None, aliased: int, topic_id: str | None = "t") -> object:
        known = facts(one, two, live=1, aliased=aliased, candidate=2)
        return planning.assignment(planning.plan(known), known, undecided, topic_id)

    assert coordinated(2, 1) == Assignment(two, "t", candidate=True)
    assert coordinated(2, 9) == Assignment(one, "t")
    assert coordinated(None, 1) == coordinated(3, 1) == Assignment(one, "t", serves=True)
    assert coordinated(2, 1, None) is None
    known = facts(two, live=1, aliased=None, candidate=2)
    assert planning.assignment(planning.plan(known), known, 2, "t") is None


def test_a_group_has_passed_when_every_partition_with_records_has() -> None:
    ends = {0: (0, 5), 1: (0, 0), 2: (3, 3), 3: (2, 9)}
    assert planning.remaining({0: 5, 3: 9}, ends) == 0
    assert planning.remaining({0: 7, 1: 0, 2: 3, 3: 9}, ends) == 0
    assert planning.remaining({0: 5}, ends) == 7
    assert planning.remaining({0: 4, 3: 9}, ends) == 1
    assert planning.remaining({0: 4}, ends) == 1 + 7


def test_the_share_that_a_group_has_read() -> None:
    ends = {0: (100, 1100), 1: (0, 1000), 2: (5, 5)}
    assert planning.share_read({}, ends) == "0%"
    assert planning.share_read({0: 150}, ends) == "2%"
    assert planning.share_read({0: 1100, 1: 979}, ends) == "98%"
    assert planning.share_read({0: 1100, 1: 980}, ends) == "all"
    assert planning.share_read({}, {0: (7, 7)}) == "all"


def test_each_build_and_topic_has_its_own_group() -> None:
    builds = [build(1), build(1, build_id="ffffffff"), build(2), rebuilt(1, "aaaa0001")]
    groups = {
        planning.group("p_retrail-index", Assignment(one, topic_id))
        for one in builds
        for topic_id in ("id-1", "id-2")
    }
    assert len(groups) == 2 * len(builds)
    one = Assignment(build(2), "id-1")
    assert planning.group("p_retrail-index", one) == "p_retrail-index-r_v2-00000002-id-1"


hashes = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("xyz"))


@given(expected=hashes, rows=hashes, ignoring=st.frozensets(st.sampled_from("abcdef")))
def test_repairing_what_a_comparison_finds_makes_both_sides_equal(
    expected: dict[str, str], rows: dict[str, str], ignoring: frozenset[str]
) -> None:
    found = planning.compare(expected, rows, ignoring)
    assert not (found.upserts | found.deletes) & ignoring
    repaired = {k: v for k, v in rows.items() if k not in found.deletes}
    repaired |= {k: expected[k] for k in found.upserts}
    assert not planning.compare(expected, repaired, ignoring)
    assert {k: v for k, v in repaired.items() if k not in ignoring} == {
        k: v for k, v in expected.items() if k not in ignoring
    }


def test_equal_sides_need_no_repair() -> None:
    assert planning.compare({"a": "x"}, {"a": "x"}) == Difference(frozenset(), frozenset())
