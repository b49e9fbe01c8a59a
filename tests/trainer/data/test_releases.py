"""Which records of ``retriever-releases`` are accepted, and which are refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InputError
from schemas.releases import CandidateDecision, Live, Record
from tests.trained import NOW, a_decision, a_release, run_of
from trainer.data.releases import MAX_STEP, Releases, promoted, refusal, rolled_back


def live(version: int, **changes: Any) -> Live:
    return Live(**({"version": version, "why": "", "changed_at": NOW} | changes))


def known(*records: Record) -> Releases:
    found = Releases()
    for offset, record in enumerate(records):
        found = found.with_record(record, offset)
    return found


ONE, TWO = a_release(1, None, "first"), a_release(2, 1, "ship")
START = (ONE, live(1), TWO, live(2))


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (
            a_release(2, 1, "ship", run_id=run_of(9)),
            "release 2 exists (offset 2)",
        ),
        (a_release(1, None, "first", retriever="r", model=TWO.model), "release 1 exists"),
        (a_release(3, None, "first"), "it has no parent"),
        (a_release(3, 7, "ship"), "its parent, release 7, does not exist"),
        (a_release(3 + MAX_STEP, 2, "ship"), "more than 100 above the highest, 2"),
        (a_release(2**31 - 1, 2, "ship"), "more than 100 above the highest, 2"),
        (live(9), "live names release 9, which does not exist"),
        (live(9, by="operator"), "live names release 9, which does not exist"),
        (live(1), "another one became live after it was made"),
        (a_decision(9, "ship"), "release 9 is not a candidate"),
        (a_decision(2, "reject"), "release 2 is not a candidate"),
    ],
)
def test_an_inconsistent_record_is_refused_and_changes_nothing(record: Record, why: str) -> None:
    before = known(*START)

    assert why in refusal(before, record)
    after = before.with_record(record, 4)

    assert (after.by_version, after.live) == (before.by_version, before.live)
    assert after.next_offset == 5


@pytest.mark.parametrize("decision", ["hold", "reject", "pending"])
def test_only_an_operator_makes_an_unshipped_release_live(decision: str) -> None:
    before = known(*START, a_release(3, 2, decision))

    assert f"did not ship ({decision})" in refusal(before, live(3))
    assert before.with_record(live(3), 5).live == live(2)
    by_operator = promoted(before, 3, NOW)
    assert by_operator.by == "operator"
    after = before.with_record(by_operator, 5)
    assert after.live == by_operator
    back = rolled_back(after, NOW)
    assert (back.by, back.version) == ("operator", 2)
    assert after.with_record(back, 6).live == back


def test_a_candidate_goes_live_only_with_a_decision_that_ships_it() -> None:
    before = known(*START, a_release(3, 2, "ship", candidate=True))

    assert "did not ship (candidate)" in refusal(before, live(3))
    rejected = before.with_record(a_decision(3, "reject"), 5)
    assert "did not ship (reject)" in refusal(rejected, live(3))
    decided = before.with_record(a_decision(3, "ship"), 5)
    assert decided.with_record(live(3), 6).live == live(3)
    assert decided.with_record(a_decision(3, "reject"), 6).decisions == decided.decisions
    rolled = decided.with_record(rolled_back(decided, NOW), 6)
    assert "another one became live" in refusal(rolled, live(3))


def test_an_operator_overrides_quality_but_not_integrity() -> None:
    before = known(*START, a_release(3, 2, "ship", candidate=True))

    assert promoted(before.with_record(a_decision(3, "reject"), 5), 3, NOW).version == 3
    with pytest.raises(InputError, match="because of 3"):
        promoted(before.with_record(a_decision(3, "failed"), 5), 3, NOW)


def test_a_repeated_release_is_no_error_and_the_first_one_counts() -> None:
    before = known(*START)
    again = TWO.model_copy(update={"reason": "decided again"})

    assert refusal(before, again) == ""
    after = before.with_record(again, 4)

    assert (after.by_version, after.offsets) == (before.by_version, before.offsets)


def test_the_first_release_is_registered_only_without_a_later_one() -> None:
    assert known().lacks_first()
    assert known(ONE).lacks_first()
    assert not known(ONE, live(1)).lacks_first()
    # A refused record replaced the live one, which was compacted away.
    assert not known(ONE, TWO, live(9)).lacks_first()


VERSIONS = st.integers(1, 6) | st.just(2**31 - 1)
RECORDS = (
    st.builds(
        lambda v, parent, decision, candidate: a_release(v, parent, decision, candidate=candidate),
        VERSIONS,
        st.none() | VERSIONS,
        st.sampled_from(["first", "ship", "hold", "reject"]),
        st.booleans(),
    )
    | st.builds(a_decision, VERSIONS, st.sampled_from(["ship", "hold", "failed", "abandoned"]))
    | st.builds(lambda v, by: live(v, by=by), VERSIONS, st.sampled_from(["retrail", "operator"]))
)


@given(st.lists(RECORDS, max_size=20))
def test_live_names_a_servable_release_whatever_is_written(records: list[Record]) -> None:
    found = known(*records)

    assert found.next_offset == len(records)
    for version, release in found.by_version.items():
        assert found.lineage(version)[-1] == 1
        assert release.version == version
    if found.live is not None:
        decision = found.decision(found.live.version)
        assert found.live.by == "operator" or decision in ("first", "ship")
    first: dict[int, CandidateDecision] = {}
    for offset, record in enumerate(records):
        if isinstance(record, CandidateDecision) and not refusal(known(*records[:offset]), record):
            first.setdefault(record.version, record)
    assert found.decisions == first


def test_a_child_is_compared_with_the_fifth_release_before_it_or_the_first() -> None:
    chain = [ONE, *(a_release(version, version - 1, "ship") for version in range(2, 9))]
    found = known(*chain)
    assert [found.ancestor(parent) for parent in range(1, 9)] == [1, 1, 1, 1, 1, 2, 3, 4]
