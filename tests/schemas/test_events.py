"""Reading trajectory events: accepted records, and the reasons of rejected ones."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.errors import InvalidRecordError
from schemas.events import Agent, Browse, Hit, Reasoning, Search, parse

ENVELOPE = {
    "event_id": "e",
    "trajectory_id": "t",
    "seq": 0,
    "occurred_at": "2026-01-01T00:00:00Z",
    "agent": {"name": "a", "model": "m"},
}
SEARCH = {**ENVELOPE, "type": "search", "query": "q", "hits": [{"doc_id": "d", "rank": 1}]}


def read(**fields):
    return parse(json.dumps(SEARCH | fields).encode())


def test_an_event_is_read_as_its_type():
    event = read().event
    assert isinstance(event, Search)
    assert event.hits == (Hit(doc_id="d", rank=1),)
    assert event.schema_version == "1.0"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "malformed_json"),
        (b'{"type": "search"', "malformed_json"),
        (b"\xff\xfe\x00", "malformed_json"),
        (b"null", "invalid_field"),
        (b"[]", "invalid_field"),
        (json.dumps(ENVELOPE).encode(), "missing_field"),
        (json.dumps({**SEARCH, "type": "click"}).encode(), "unknown_type"),
        (json.dumps({**ENVELOPE, "type": "browse"}).encode(), "missing_field"),
    ],
)
def test_bytes_that_are_no_event(value, reason):
    with pytest.raises(InvalidRecordError) as error:
        parse(value)
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"{}", "^type: Field required$"),
        (b'{"type": "serch"}', "^type: 'serch' is none of 'search', 'browse'"),
    ],
)
def test_an_error_of_the_type_is_in_plain_words(value, words):
    with pytest.raises(InvalidRecordError, match=words):
        parse(value)


@pytest.mark.parametrize(
    "fields",
    [
        {"seq": -1},
        {"seq": "0"},
        {"seq": 1.5},
        {"seq": 2**31},
        {"trajectory_id": ""},
        {"trajectory_id": "x" * 513},
        {"occurred_at": "2026-01-01T00:00:00"},
        {"occurred_at": "yesterday"},
        {"hits": [{"doc_id": "d", "rank": 0}]},
        {"hits": [{"doc_id": "d", "rank": 1, "score": "high"}]},
        {"retriever_version": 0},
        {"schema_version": "one"},
        {"surprise": 1},
    ],
)
def test_a_field_that_breaks_the_contract(fields):
    with pytest.raises(InvalidRecordError) as error:
        read(**fields)
    assert error.value.reason == "invalid_field"
    assert next(iter(fields)) in str(error.value)


def test_a_newer_minor_version_is_read_without_its_unknown_fields():
    newer = read(
        schema_version="1.7", mood="good", hits=[{"doc_id": "d", "rank": 1, "snippet": "s"}]
    )
    assert newer.unknown_fields == 2
    assert newer.event == read(schema_version="1.7").event


def test_a_newer_minor_version_still_has_to_keep_the_rest_of_the_contract():
    with pytest.raises(InvalidRecordError) as error:
        read(schema_version="1.7", mood="good", seq=-1)
    assert error.value.reason == "invalid_field"


@pytest.mark.parametrize("version", ["2.0", "0.9"])
@pytest.mark.parametrize("more", [{}, {"mood": "good"}])
def test_another_major_version_is_not_read(version, more):
    with pytest.raises(InvalidRecordError) as error:
        read(schema_version=version, **more)
    assert error.value.reason == "unsupported_version"


def test_events_are_frozen():
    event = read().event
    with pytest.raises(ValidationError, match="frozen"):
        event.seq = 3


_queries = st.text().filter(str.strip)
_envelopes = st.fixed_dictionaries(
    {
        "event_id": st.text(min_size=1, max_size=20),
        "trajectory_id": st.text(min_size=1, max_size=20),
        "seq": st.integers(0, 2**31 - 1),
        "occurred_at": st.datetimes(
            datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)
        ),
        "agent": st.builds(Agent, name=st.text(max_size=9), model=st.text(max_size=9)),
        "tenant": st.text(max_size=9),
        "retriever_version": st.none() | st.integers(1, 99),
    }
)
_hits = st.lists(
    st.builds(
        Hit,
        doc_id=st.text(min_size=1, max_size=9),
        rank=st.integers(1, 99),
        score=st.none() | st.floats(-1, 1),
    ),
    max_size=3,
).map(tuple)
_events = st.one_of(
    st.builds(lambda e, q, h: Search(**e, query=q, hits=h), _envelopes, _queries, _hits),
    st.builds(lambda e, d: Browse(**e, doc_id=d), _envelopes, st.text(min_size=1, max_size=9)),
    st.builds(
        lambda e, t, n: Reasoning(**e, text=t, tokens=n),
        _envelopes,
        st.none() | st.text(),
        st.none() | st.integers(0, 9),
    ),
)


@given(_events)
def test_what_is_written_is_read_back(event):
    assert parse(event.to_json()).event == event


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(value):
    with pytest.raises(InvalidRecordError):
        parse(value)
