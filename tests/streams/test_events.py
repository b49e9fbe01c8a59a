"""The structs of the stream workers accept what the contract accepts, with equal values."""

import json
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas import events, judged
from schemas.errors import InvalidReason, InvalidRecordError
from streams.events import Tick, encode, read_judged, read_published
from tests.effort import examples

ENVELOPE = {
    "event_id": "e",
    "trajectory_id": "t",
    "seq": 3,
    "occurred_at": "2026-11-01T12:00:00Z",
    "agent": {"name": "scout", "model": "model-7b"},
    "tenant": "acme",
    "retriever_version": 2,
    "schema_version": "1.0",
}
SOURCE = {
    "source_topic_id": "qx5YwPbQSUSvtlBOSbJPzw",
    "source_partition": 1,
    "source_offset": 41,
    "source_time": 1_700_000_000_000,
}
SKIPPED = {
    "type": "skipped",
    "source_topic_id": "qx5YwPbQSUSvtlBOSbJPzw",
    "source_partition": 0,
    "source_offset": 41,
    "skipped_from": 7,
}
JUDGEMENT = {"verdict": "relevant", "judge": "local", "judge_version": "6"}
HITS = [{"doc_id": "d", "rank": 1, "score": 0.5}, {"doc_id": "f", "rank": 2}]

PUBLISHED = [
    ENVELOPE | fields
    for fields in (
        {"type": "search", "query": "Kőszeg", "hits": HITS},
        {"type": "browse", "doc_id": "d"},
        {"type": "reasoning", "text": "It helps.", "tokens": 4, "verdict": "relevant"},
        {"type": "reasoning", "about": "d"},
        {"type": "reasoning", "text": "It helps.", "about_previous": True},
        {"type": "answer", "text": "1907"},
        {"type": "end", "outcome": "correct"},
        {"type": "other", "name": "calculator"},
    )
]
PUBLISHED.append({name: item for name, item in PUBLISHED[0].items() if name != "seq"})
JUDGED = [
    *(
        ENVELOPE | SOURCE | fields
        for fields in (
            {"type": "search", "query": "Kőszeg", "hits": HITS},
            {"type": "browse", "doc_id": "d"},
            {"type": "browse", "doc_id": "d"} | JUDGEMENT,
            {"type": "reasoning", "about": "d", "tokens": 4} | JUDGEMENT,
            {"type": "answer"},
            {"type": "end", "outcome": "unknown"},
            {"type": "other", "name": "calculator"},
        )
    ),
    ENVELOPE | SOURCE | {"type": "answer", "skipped_from": 40},
    ENVELOPE | SOURCE | {"type": "reasoning", "about_previous": True, "tokens": 4} | JUDGEMENT,
    {name: item for name, item in ENVELOPE.items() if name != "seq"}
    | SOURCE
    | {"type": "browse", "doc_id": "d"},
    {"type": "tick", "as_of": 7},
    SKIPPED,
]


def outcome(read, value):
    """What a reader returns, or the reason and message of its error."""
    try:
        return read(value)
    except InvalidRecordError as error:
        return error.reason, str(error)


def assert_published_alike(value):
    """Judge and contract agree on a record of trajectory-events."""
    wanted, found = outcome(events.parse, value), outcome(read_published, value)
    if isinstance(wanted, events.Parsed):
        event, unknown_fields = found
        wanted = (wanted.event, wanted.unknown_fields)
        found = (events.adapter.validate_json(encode(event)), unknown_fields)
    assert found == wanted


def assert_judged_alike(value):
    """Miner and contract agree on a record of judged-events."""
    wanted, found = outcome(judged.parse, value), outcome(read_judged, value)
    if isinstance(wanted, events.Parsed):
        wanted, found = wanted.event, judged.adapter.validate_json(encode(found))
    assert found == wanted


_long = st.sampled_from(["a", "é", "🌍"]).flatmap(
    lambda mark: st.sampled_from([127, 128, 129, 256, 257, 512, 513]).map(mark.__mul__)
)
_times = st.sampled_from(
    [
        *("2026-11-01", "2026-11-01T24:00:00Z", "2026-11-01 12:00:00.1234567+0100", "1700000000"),
        *("2026-11-01T12:00:00", "2026-11-01T12:00:60Z", "2026-11-01T12Z", "2026-11-01T12:00Z"),
        *("2026-11-01T12:00:00.9999999Z", "2026-11-01t12:00:00,5z", "2026-02-30T00:00:00Z"),
    ]
)
_versions = st.sampled_from(["1.0", "1.7", "1.999999", "1.0000000", "٣.٣", "١.٠", "1.0\n", "01.1"])
_blanks = st.text(
    st.sampled_from([*map(chr, range(33)), *"\x7f\x85\xa0\u180e\u200b\u2028\u3000\ufeff"])
)
_words = st.sampled_from(
    ["search", "browse", "tick", "relevant", "irrelevant", "unknown", "correct", "2.0", ""]
)
_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-2, 2)
    | st.sampled_from([2**31 - 1, 2**31, 2**63 - 1, 2**63, 10**30])
    | st.floats()
    | st.text()
    | _long
    | _times
    | _versions
    | _words
    | _blanks
    | st.just({})
    | st.just([])
)
_names = st.sampled_from(
    [
        *ENVELOPE,
        *SOURCE,
        *JUDGEMENT,
        *("type", "query", "hits", "doc_id", "text", "tokens", "about", "about_previous"),
        *("outcome", "name"),
        *("as_of", "mood"),
    ]
)


@st.composite
def records(draw, valid):
    """A valid record, or one with fields that are changed, removed, added, repeated or moved."""
    event = json.loads(json.dumps(draw(st.sampled_from(valid))))
    inner = [event]
    if "agent" in event:
        inner.append(event["agent"])
    inner += event.get("hits", [])
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.sampled_from(inner))
        name = draw(_names if place is event else st.sampled_from([*place, "mood"]))
        if draw(st.booleans()):
            place[name] = draw(_scalars)
        else:
            place.pop(name, None)
    members = draw(st.permutations(list(event.items())))
    members += draw(st.lists(st.tuples(_names, _scalars), max_size=1))
    members += [(name, event[name]) for name in draw(st.lists(_names, max_size=1)) if name in event]
    gap, ascii_only = draw(st.sampled_from(["", " ", "\n\t"])), draw(st.booleans())
    written = ",".join(
        f"{gap}{json.dumps(name)}{gap}:{gap}{json.dumps(item, ensure_ascii=ascii_only)}"
        for name, item in members
    )
    return f"{gap}{{{written}{gap}}}{gap}".encode()


@given(_blanks)
@settings(max_examples=examples(200), deadline=None)
def test_judge_and_contract_agree_on_which_query_is_blank(query):
    assert_published_alike(json.dumps(PUBLISHED[0] | {"query": query}).encode())
    assert_judged_alike(json.dumps(JUDGED[0] | {"query": query}).encode())


@pytest.mark.parametrize("query", ["", " ", "\n\t", "\x1c", "\x85", "\xa0\u3000"])
def test_a_search_with_a_blank_query_is_refused(query):
    found = outcome(read_published, json.dumps(PUBLISHED[0] | {"query": query}).encode())
    assert found == ("invalid_field", "search.query: a query must not be blank")


def changed(event, old, new):
    """The event's bytes with one piece replaced."""
    written = json.dumps(event)
    assert old in written
    return written.replace(old, new, 1).encode("utf-8", "surrogatepass")


ODD = [
    b"",
    b"null",
    b"\xef\xbb\xbf{}",
    b'{"hits":' + b"[" * 100_000,
    b'{"mood":{"a":' * 50_000,
    json.dumps(PUBLISHED[0] | {"schema_version": "2.0"}).encode(),
    json.dumps(PUBLISHED[0] | {"schema_version": "1.7", "mood": "calm"}).encode(),
    json.dumps({name: item for name, item in ENVELOPE.items() if name != "type"}).encode(),
    changed(PUBLISHED[0], '"seq": 3', '"seq": 3.0'),
    changed(PUBLISHED[0], '"seq": 3', '"seq": 1e2'),
    changed(PUBLISHED[0], '"seq": 3', '"seq": -0'),
    changed(PUBLISHED[0], '"score": 0.5', '"score": 1e400'),
    changed(PUBLISHED[0], '"score": 0.5', '"score": NaN'),
    changed(PUBLISHED[0], '"score": 0.5', '"score": 1.7976931348623159e308'),
    changed(PUBLISHED[0], '"score": 0.5', '"score": 123456789012345678901234567890'),
    changed(PUBLISHED[0], "K\\u0151szeg", "\\ud800"),
    changed(PUBLISHED[0], "K\\u0151szeg", "\ud800"),
    changed(PUBLISHED[0], "K\\u0151szeg", "a\tb"),
    changed(PUBLISHED[0], '"type": "search"', '"type": "browse", "type": "search"'),
    changed(PUBLISHED[0], '"type": "search"', '"type": "\\u0073earch"'),
    changed(PUBLISHED[0], '"seq": 3', '"seq": "x", "seq": 3'),
]


@pytest.mark.parametrize("value", ODD, ids=lambda value: value[:40])
def test_judge_and_contract_agree_on_odd_records(value):
    assert_published_alike(value)


@given(records(PUBLISHED))
@example(json.dumps(PUBLISHED[2] | {"verdict": "unknown"}).encode())
@example(json.dumps(PUBLISHED[3] | {"judge": None}).encode())
@example(json.dumps(PUBLISHED[1] | {"verdict": None}).encode())
@example(json.dumps(PUBLISHED[0] | SOURCE).encode())
@settings(max_examples=examples(500), deadline=None)
def test_judge_and_contract_agree(value):
    assert_published_alike(value)


@given(records(JUDGED))
@example(json.dumps(JUDGED[3] | {"text": None}).encode())
@example(json.dumps(JUDGED[4] | {"text": ""}).encode())
@example(json.dumps(PUBLISHED[0]).encode())
@example(b'{"type":"tick","schema_version":"1.9"}')
@settings(max_examples=examples(500), deadline=None)
def test_miner_and_contract_agree(value):
    assert_judged_alike(value)


@given(st.binary(max_size=200))
def test_foreign_bytes_raise_nothing_else(value):
    for read in (read_published, read_judged):
        with pytest.raises(InvalidRecordError) as raised:
            read(value)
        assert raised.value.reason in get_args(InvalidReason)


@pytest.mark.parametrize("event", PUBLISHED, ids=lambda event: event["type"])
def test_what_is_published_is_read_without_the_contract(event, monkeypatch):
    monkeypatch.setattr(events, "parse", None)
    found, _ = read_published(json.dumps(event).encode())
    assert json.loads(encode(found)) == event


@pytest.mark.parametrize("event", JUDGED, ids=lambda event: event["type"])
def test_what_the_judge_writes_is_read_without_the_contract(event, monkeypatch):
    monkeypatch.setattr(judged, "parse", None)
    found = read_judged(json.dumps(event).encode())
    assert json.loads(encode(found)) == {
        name: item for name, item in event.items() if (name, item) != ("outcome", "unknown")
    }


def test_a_tick_is_read():
    assert read_judged(judged.Tick(as_of=5).to_json()) == Tick(as_of=5)
    assert read_judged(judged.Tick().to_json()) == Tick()
