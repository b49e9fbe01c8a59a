"""Which records an erasure covers, as a function of the records."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.erasures import Erasure, Erasures, SubjectKind, decode, encode, hashed, key_check
from schemas.errors import ConfigurationError, InvalidRecordError
from schemas.runs import Range

KEY = b"a key of sixteen"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def erasure(kind: SubjectKind, identifier: str, key: bytes = KEY, **ends: int) -> Erasure:
    return Erasure(
        erasure_id="0" * 32,
        kind=kind,
        subject=hashed(key, kind, identifier),
        key_check=key_check(key),
        ends=tuple(
            Range(topic=topic, partition=0, start=0, end=end) for topic, end in ends.items()
        ),
        erased_at=NOW,
    )


@given(offset=st.integers(0, 20), end=st.integers(0, 20), partition=st.integers(0, 1))
def test_records_below_the_end_are_covered(offset: int, end: int, partition: int) -> None:
    known = Erasures(KEY, [erasure("tenant", "acme", pairs=end)])
    found = known.covering([("pairs", partition, offset)], tenant="acme")
    assert bool(found) == (partition == 0 and offset < end)


def test_only_the_subject_itself_is_covered() -> None:
    known = Erasures(KEY, [erasure("tenant", "acme", pairs=9)])
    place = [("pairs", 0, 1)]
    assert known.covering(place, tenant="acme")
    assert not known.covering(place, tenant="acme2")
    assert not known.covering(place, agent="acme"), "a tenant is no agent"
    assert not known.covering([("others", 0, 1)], tenant="acme")


def test_any_place_is_enough() -> None:
    """Case: a pair written after the erasure, of events before it."""
    known = Erasures(KEY, [erasure("trajectory", "t", pairs=5, judged=7)])
    assert known.covering([("pairs", 0, 6), ("judged", 0, 6)], trajectory="t")
    assert not known.covering([("pairs", 0, 6), ("judged", 0, 8)], trajectory="t")


@pytest.mark.parametrize(("kind", "later"), [("trajectory", True), ("agent", False)])
def test_imports(kind: SubjectKind, later: bool) -> None:
    """An erased trajectory never comes back; of an agent later work is kept."""
    known = Erasures(KEY, [erasure(kind, "x")])
    assert known.of_import(NOW - timedelta(1), **{kind: "x"})
    assert bool(known.of_import(NOW + timedelta(1), **{kind: "x"})) == later
    assert not known.of_import(NOW - timedelta(1), **{kind: "y"})


@pytest.mark.parametrize("key", [None, b"another"])
def test_a_record_of_another_key_is_not_passed_over(key: bytes | None) -> None:
    with pytest.raises(ConfigurationError, match="RETRAIL_ERASE_KEY_FILE"):
        Erasures(key, [erasure("tenant", "acme")])
    assert not Erasures(key).covering([("pairs", 0, 0)], tenant="acme")


def test_records_have_no_identifier() -> None:
    one = erasure("tenant", "acme-corporation", pairs=3)
    key, value = encode(one)
    assert decode(value) == one
    assert key == one.erasure_id.encode()
    assert b"acme" not in value
    with pytest.raises(InvalidRecordError):
        decode(b"{}")
