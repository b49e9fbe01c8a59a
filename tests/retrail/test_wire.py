"""Events as bytes: records, hits in their many forms, sizes, later outcomes."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrail import wire
from retrail.errors import InvalidEventError
from schemas import events, topics
from schemas.events import OutcomeReport, parse

AT = datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC)
SENDER = wire.Sender("task-17", "my-agent", "qwen3-30b", "acme")

any_text = st.text(st.characters(exclude_categories=()))
doc_ids = st.text(min_size=1, max_size=512) | st.integers(0, 2**63)
scores = st.none() | st.floats()
hits = st.one_of(
    doc_ids,
    st.tuples(doc_ids, scores),
    st.fixed_dictionaries(
        {"doc_id": doc_ids}, optional={"score": scores, "rank": st.integers(1, 2**31 - 1)}
    ),
)
steps = st.one_of(
    st.tuples(
        st.just("search"), st.builds(wire.search, any_text.filter(str.strip), st.lists(hits))
    ),
    st.tuples(st.just("browse"), st.builds(wire.browse, doc_ids)),
    st.tuples(
        st.just("reasoning"),
        st.builds(
            wire.reasoning,
            st.none() | any_text,
            st.none() | st.integers(0, 2**31 - 1),
            st.sampled_from([None, "relevant", "irrelevant"]),
        ),
    ),
    st.tuples(st.just("answer"), st.builds(wire.answer, st.none() | any_text)),
    st.tuples(st.just("end"), st.builds(wire.end, st.sampled_from(wire.OUTCOMES))),
    st.tuples(st.just("other"), st.builds(wire.other, st.text(max_size=256))),
)


def made(kind: str, data: wire.Data, **changes: Any) -> wire.Record:
    arguments: dict[str, Any] = {
        "seq": 3,
        "event_id": "e-1",
        "at": AT,
        "retriever_version": None,
    } | changes
    return wire.record(SENDER, kind=kind, data=data, **arguments)


@given(steps, st.none() | st.integers(1, 2**31 - 1))
def test_every_event_is_of_the_contract(step: tuple[str, wire.Data], version: int | None) -> None:
    kind, data = step
    record = made(kind, data, retriever_version=version)
    parsed = parse(record.value)
    assert parsed.unknown_fields == 0
    assert parsed.event.type == kind
    assert parsed.event.retriever_version == version
    assert parsed.event.occurred_at == AT
    assert record.key == b"task-17"
    assert list(record.headers) == events.cloudevents(parsed.event, kind)
    # Nothing optional is spelled out, and no other name for a thing is used.
    assert json.loads(record.value).keys() == json.loads(parsed.event.to_json()).keys()


def test_constants_are_those_of_the_contract() -> None:
    assert wire.MAX_EVENT_BYTES == topics.MAX_EVENT_BYTES
    assert wire.SCHEMA_VERSION == events.SCHEMA_VERSION


class Hit:
    """As serving's hits are."""

    def __init__(self, doc_id: str, rank: int, score: float) -> None:
        self.doc_id, self.rank, self.score = doc_id, rank, score


def test_hits_come_in_many_forms() -> None:
    found = wire.search(
        "q",
        ["a", ("b", 0.5), ["c", 1], {"doc_id": "d", "score": 2.0}, Hit("e", 11, 0.25), 7],
    )
    assert found["hits"] == [
        {"doc_id": "a", "rank": 1},
        {"doc_id": "b", "rank": 2, "score": 0.5},
        {"doc_id": "c", "rank": 3, "score": 1.0},
        {"doc_id": "d", "rank": 4, "score": 2.0},
        {"doc_id": "e", "rank": 11, "score": 0.25},
        {"doc_id": "7", "rank": 6},
    ]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None])
def test_a_score_that_is_no_number_is_left_out(score: float | None) -> None:
    assert wire.search("q", [("a", score)])["hits"] == [{"doc_id": "a", "rank": 1}]


@pytest.mark.parametrize(
    "make",
    [
        lambda: wire.search(None, []),
        lambda: wire.search("q", [None]),
        lambda: wire.search("q", [("a", 1.0, 2.0)]),
        lambda: wire.search("q", [("a", "high")]),
        lambda: wire.search("q", [{"id": "a"}]),
        lambda: wire.search("q", [{"doc_id": "a", "rank": 0}]),
        lambda: wire.search("q", [True]),
        lambda: wire.browse(""),
        lambda: wire.browse("x" * 513),
        lambda: wire.browse(1.5),
        lambda: wire.reasoning("t", -1, None),
        lambda: wire.reasoning("t", 2**31, None),
        lambda: wire.reasoning("t", True, None),
        lambda: wire.reasoning("t", None, "unknown"),
        lambda: wire.end("right"),
        lambda: wire.other("x" * 257),
        lambda: wire.Sender("", "a", "m", ""),
        lambda: wire.Sender("t", "a", "m" * 129, ""),
        lambda: wire.version_of(0),
    ],
)
def test_what_the_contract_would_refuse_is_refused_here(make: Any) -> None:
    with pytest.raises(InvalidEventError):
        make()


def test_lone_surrogates_do_not_make_an_event_unreadable() -> None:
    event = parse(made("reasoning", wire.reasoning("a\ud800b", None, None)).value).event
    assert isinstance(event, events.Reasoning)
    assert event.text == "a?b"


def test_too_large_has_size_and_remedy() -> None:
    pattern = r"5,\d\d\d,\d\d\d bytes.*4,194,304.*withhold"
    with pytest.raises(InvalidEventError, match=pattern) as caught:
        made("answer", wire.answer("x" * 5_000_000))
    assert (caught.value.size or 0) > 5_000_000


@given(
    st.text(min_size=1, max_size=512),
    st.sampled_from(wire.REPORTED),
    st.text(max_size=128),
)
def test_the_contract_reads_every_outcome(trajectory_id: str, outcome: str, source: str) -> None:
    record = wire.outcome_report(
        trajectory_id, outcome, source=source, agent="me", report_id="r-1", at=AT
    )
    report = OutcomeReport.model_validate_json(record.value)
    assert report.trajectory_id.encode() == record.key
    assert (report.outcome, report.reported_at) == (outcome, AT)
    assert dict(record.headers)["ce_type"] == b"retrail.outcome"


@pytest.mark.parametrize(
    ("trajectory_id", "outcome", "source"),
    [("", "correct", "u"), (7, "correct", "u"), ("t", "unknown", "u"), ("t", "correct", "u" * 129)],
)
def test_an_outcome_that_the_contract_refuses_is_refused(
    trajectory_id: Any, outcome: str, source: str
) -> None:
    with pytest.raises(InvalidEventError):
        wire.outcome_report(trajectory_id, outcome, source=source, agent="me", report_id="r", at=AT)


@pytest.mark.parametrize("query", ["", " ", "\n\t", "\u3000\u00a0"])
def test_a_blank_query_is_refused(query: str) -> None:
    with pytest.raises(InvalidEventError, match="query is blank"):
        wire.search(query, ["d"])
