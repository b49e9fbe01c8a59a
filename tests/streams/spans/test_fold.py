"""Traces are closed at the same records wherever a fold begins to read the log again."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.spans.fold import MAX_SPANS, TICK, Fold, Limits, Resume, encode
from streams.spans.reduce import AgentSpan

LIMITS = Limits(root_ms=30, quiet_ms=60, age_ms=2_000, open_bytes=6_000)
Log = list[tuple[int, bytes | None, bytes]]


def spans(*numbers: int, root: bool = False, text: str = "") -> bytes:
    """The value of a record; the last span is the root, if there is one."""
    made = [
        AgentSpan(f"s{n}", "" if root and n == numbers[-1] else "p", n, n, text=text)
        for n in numbers
    ]
    return encode(made)


def apply(fold: Fold, log: Log, start: int = 0, acknowledged: int = 0) -> list[Any]:
    """What the records from ``start`` on close: record, trace, spans and reason."""
    found = []
    for offset, (at, key, value) in enumerate(log[start:], start):
        closed = fold.apply(offset, at, key, value, silent=offset < acknowledged)
        found += [(offset, one.key, [s.span_id for s in one.spans], one.reason) for one in closed]
    return found


def tick(at: int) -> tuple[int, None, bytes]:
    return at, None, TICK


def test_a_trace_is_closed_some_time_after_its_root() -> None:
    log = [(0, b"t", spans(1)), (5, b"t", spans(2, root=True)), (6, b"t", spans(3)), tick(34)]
    assert apply(Fold(LIMITS), log) == []
    assert apply(Fold(LIMITS), [*log, tick(35)]) == [(4, "t", ["s1", "s2", "s3"], "root")]


def test_a_trace_without_a_root_is_closed_when_it_is_quiet() -> None:
    log = [(0, b"t", spans(1)), (50, b"t", spans(2)), tick(109), tick(110)]
    assert apply(Fold(LIMITS), log) == [(3, "t", ["s1", "s2"], "quiet")]


def test_a_trace_that_goes_on_is_closed_at_its_age() -> None:
    log: Log = [(at, b"t", spans(at)) for at in range(0, 2_050, 50)]
    [(offset, _, _, reason)] = apply(Fold(LIMITS._replace(open_bytes=10**9)), log)
    assert (offset, reason) == (40, "age")


def test_repeats_change_nothing() -> None:
    fold = Fold(LIMITS)
    log = [(0, b"t", spans(1)), (1, b"t", spans(1, 2)), (2, b"t", spans(2, root=True)), tick(40)]
    assert apply(fold, log) == [(3, "t", ["s1", "s2"], "root")]
    assert fold.counts["spans", "repeated"] == 2


def test_a_late_span_is_counted_and_changes_nothing() -> None:
    fold = Fold(LIMITS)
    log = [(0, b"t", spans(1, root=True)), tick(30), (100, b"t", spans(2)), tick(219), tick(400)]
    assert apply(fold, log) == [(1, "t", ["s1"], "root")]
    assert fold.counts["spans", "late"] == 1


@pytest.mark.parametrize(
    ("more", "result"),
    [
        (spans(*range(MAX_SPANS + 1)), "too_many"),
        (spans(*range(300), text="x" * 20_000), "too_large"),
    ],
)
def test_a_trace_is_bounded(more: bytes, result: str) -> None:
    fold = Fold(LIMITS._replace(open_bytes=10**9))
    [(_, _, kept, _)] = apply(fold, [(0, b"t", more), tick(60)])
    assert fold.counts["spans", result] > 0
    assert len(kept) + fold.counts["spans", result] == len(more.split(b'"id"')) - 1


def test_the_oldest_trace_is_closed_when_memory_is_full() -> None:
    log: Log = [(0, f"t{n}".encode(), spans(n)) for n in range(40)]
    closed = apply(Fold(LIMITS), log)
    assert [key for _, key, _, _ in closed] == [f"t{n}" for n in range(len(closed))]
    assert {reason for *_, reason in closed} == {"memory"}


def test_what_is_no_span_is_counted() -> None:
    fold = Fold(LIMITS)
    assert apply(fold, [(0, b"t", b"{"), (0, b"t", b'[{"id": 7}]'), (0, b"\xff", b"[]")]) == []
    assert fold.counts["spans", "undecodable"] == 3


def test_a_commit_without_metadata_is_silent_about_nothing() -> None:
    assert Resume.parse(7, "") == Resume(7, 7)
    assert Resume.parse(7, Resume(7, 9, 3).metadata()) == Resume(7, 9, 3)


RECORDS = st.lists(
    st.tuples(
        st.integers(0, 25) | st.sampled_from([40, 80, 130]),  # ms since the record before
        st.integers(0, 5),  # the trace; 0: a tick
        st.integers(0, 8),  # the span
        st.booleans(),  # whether it is the root
    ),
    max_size=80,
)


@given(RECORDS, st.randoms())
def test_any_cut_closes_the_same_traces_at_the_same_records(
    records: list[tuple[int, int, int, bool]], rng: random.Random
) -> None:
    log: Log = []
    at = 0
    for pause, trace, number, root in records:
        at += pause
        value = spans(number, root=root and number == 0, text="x" * 100)
        log.append((at, f"t{trace}".encode(), value) if trace else tick(at))
    limits = LIMITS._replace(open_bytes=rng.choice([2_000, 10**9]), age_ms=10**6)
    whole = apply(Fold(limits), log)

    # Owners follow each other, each from the last one's commit; some committed nothing new.
    commit, done, found = Resume(0, 0, 0), 0, []
    while done < len(log):
        fold, end = Fold(limits, commit.clock), rng.randint(done, len(log))
        found += apply(fold, log[:end], commit.start, commit.acknowledged)
        if end > done and (rng.random() < 0.7 or end == len(log)):
            commit = Resume(*fold.resume(end, max(end, commit.acknowledged)))
            commit = Resume.parse(commit.start, commit.metadata())
            done = end
        else:
            # Killed before its commit: what it closed is closed again, equally.
            found = [one for one in found if one[0] < commit.acknowledged]
    assert found == whole
