"""The contract reads what an agent gave, and client and contract refuse the same values."""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrail import Publisher, PublishError, Trajectory
from schemas import events
from schemas.errors import InvalidRecordError
from schemas.events import parse
from tests.retrail.conftest import FakeProducer

Call = tuple[str, dict[str, Any]]

texts = st.text(st.characters(exclude_categories=()), max_size=40)
doc_ids = st.text(min_size=1, max_size=40) | st.text("d", min_size=511, max_size=512)
versions = st.integers(1, 2**31 - 1)
counts = st.integers(0, 2**31 - 1)
hits = st.one_of(
    doc_ids,
    st.integers(),
    st.tuples(doc_ids, st.none() | st.floats() | st.integers(-(2**60), 2**60)),
    st.fixed_dictionaries({"doc_id": doc_ids}, optional={"score": st.floats(), "rank": versions}),
)


def call(name: str, required: dict[str, Any], **optional: Any) -> st.SearchStrategy[Call]:
    return st.tuples(st.just(name), st.fixed_dictionaries(required, optional=optional))


verdicts = st.sampled_from(["relevant", "irrelevant"])
outcomes = st.sampled_from(["correct", "incorrect", "unknown"])
calls = st.one_of(
    call(
        "search",
        {"query": texts.filter(str.strip), "hits": st.lists(hits)},
        retriever_version=versions,
    ),
    call("browse", {"doc_id": doc_ids}),
    call("reason", {}, text=texts, tokens=counts, verdict=verdicts),
    call("answer", {}, text=texts),
    call("other", {"name": st.text(max_size=256)}),
)


@pytest.fixture(scope="module")
def agent() -> Iterator[tuple[Publisher, FakeProducer]]:
    """A publisher that raises, and the producer that it sends to."""

    class Producers(FakeProducer):
        made: ClassVar[list[FakeProducer]] = []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retrail.outbox.Producer", Producers)
        publisher = Publisher("my-agent", "m", tenant="acme", on_error="raise")
        yield publisher, Producers.made[0]
        publisher.close()


def sent(text: str) -> str:
    """A text in UTF-8, which has no lone surrogates."""
    return text.encode("utf-8", "replace").decode()


def expected_hit(hit: Any, place: int) -> events.Hit:
    doc_id, score, rank = hit, None, place
    if isinstance(hit, tuple):
        doc_id, score = hit
    elif isinstance(hit, dict):
        doc_id, score, rank = hit["doc_id"], hit.get("score"), hit.get("rank", place)
    finite = score is not None and math.isfinite(score)
    return events.Hit(doc_id=str(doc_id), rank=rank, score=float(score) if finite else None)


def expected(name: str, given: dict[str, Any], browsed: str | None) -> dict[str, Any]:
    """The fields of the event that a call makes, besides its envelope."""
    match name:
        case "search":
            places = enumerate(given["hits"], 1)
            found = tuple(expected_hit(hit, place) for place, hit in places)
            return {"type": "search", "query": sent(given["query"]), "hits": found}
        case "reason":
            text = given.get("text")
            return {
                "type": "reasoning",
                "text": None if text is None else sent(text),
                "tokens": given.get("tokens"),
                "verdict": given.get("verdict"),
                "about": browsed,
                "about_previous": None,
            }
        case "answer":
            text = given.get("text")
            return {"type": "answer", "text": None if text is None else sent(text)}
        case _:
            return {"type": name} | given


@given(
    st.lists(calls, max_size=12),
    outcomes,
    st.text(min_size=1, max_size=512),
    st.none() | versions,
)
def test_the_contract_reads_what_the_agent_called(
    agent: tuple[Publisher, FakeProducer],
    made: list[Call],
    outcome: Any,
    trajectory_id: str,
    version: int | None,
) -> None:
    publisher, producer = agent
    producer.records.clear()
    trajectory = publisher.trajectory(trajectory_id, retriever_version=version)
    for name, arguments in made:
        getattr(trajectory, name)(**arguments)
    trajectory.end(outcome)
    browsed = None
    assert len(producer.records) == len(made) + 1
    for seq, ((name, arguments), (topic, key, value)) in enumerate(
        zip([*made, ("end", {"outcome": outcome})], producer.records, strict=True)
    ):
        parsed = parse(value)
        event = parsed.event
        version = arguments.get("retriever_version", version)
        wanted = expected(name, arguments, browsed) | {
            "trajectory_id": trajectory_id,
            "seq": seq,
            "agent": events.Agent(name="my-agent", model="m"),
            "tenant": "acme",
            "retriever_version": version,
            "schema_version": events.SCHEMA_VERSION,
        }
        drawn = {"event_id", "occurred_at"}
        assert {k: v for k, v in dict(event).items() if k not in drawn} == wanted
        assert (parsed.unknown_fields, topic) == (0, "trajectory-events")
        assert key == trajectory_id.encode()
        browsed = arguments["doc_id"] if name == "browse" else None


# -- Invalid arguments ----------------------------------------------------------------------------

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, 2**31 - 1, 2**31, "", "relevant", "correct", "unknown"])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.integers(127, 129).map("x".__mul__)
    | st.integers(255, 257).map("x".__mul__)
    | st.integers(511, 513).map("x".__mul__),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.text(), values, max_size=2),
    max_leaves=4,
)

ENVELOPE: dict[str, Any] = {
    "event_id": "e",
    "trajectory_id": "t",
    "seq": 0,
    "occurred_at": "2026-11-23T10:00:00+00:00",
    "agent": {"name": "a", "model": "m"},
}
BROWSE = ENVELOPE | {"type": "browse", "doc_id": "d"}

Made = Callable[[Trajectory, Any], None]
FIELDS: dict[str, tuple[Made, Callable[[Any], dict[str, Any]]]] = {
    "query": (
        lambda t, v: t.search(v, []),
        lambda v: ENVELOPE | {"type": "search", "query": v, "hits": []},
    ),
    "rank": (
        lambda t, v: t.search("q", [{"doc_id": "d", "rank": v}]),
        lambda v: ENVELOPE | {"type": "search", "query": "q", "hits": [{"doc_id": "d", "rank": v}]},
    ),
    "score": (
        lambda t, v: t.search("q", [{"doc_id": "d", "score": v}]),
        lambda v: (
            ENVELOPE
            | {"type": "search", "query": "q", "hits": [{"doc_id": "d", "rank": 1, "score": v}]}
        ),
    ),
    "doc_id": (lambda t, v: t.browse(v), lambda v: BROWSE | {"doc_id": v}),
    "text": (lambda t, v: t.reason(v), lambda v: ENVELOPE | {"type": "reasoning", "text": v}),
    "tokens": (
        lambda t, v: t.reason(tokens=v),
        lambda v: ENVELOPE | {"type": "reasoning", "tokens": v},
    ),
    "verdict": (
        lambda t, v: t.reason(verdict=v),
        lambda v: ENVELOPE | {"type": "reasoning", "verdict": v},
    ),
    "answer": (lambda t, v: t.answer(v), lambda v: ENVELOPE | {"type": "answer", "text": v}),
    "outcome": (lambda t, v: t.end(v), lambda v: ENVELOPE | {"type": "end", "outcome": v}),
    "name": (lambda t, v: t.other(v), lambda v: ENVELOPE | {"type": "other", "name": v}),
}
ENVELOPES = {
    "trajectory_id": lambda v: BROWSE | {"trajectory_id": v},
    "agent": lambda v: BROWSE | {"agent": {"name": v, "model": "m"}},
    "model": lambda v: BROWSE | {"agent": {"name": "a", "model": v}},
    "tenant": lambda v: BROWSE | {"tenant": v},
    "retriever_version": lambda v: BROWSE | {"retriever_version": v},
}


def taken_by_contract(event: dict[str, Any]) -> bool:
    try:
        parse(json.dumps(event, ensure_ascii=False).encode("utf-8", "replace"))
    except InvalidRecordError:
        return False
    return True


def taken_by_client(make: Callable[[], None]) -> bool:
    try:
        make()
    except PublishError:
        return False
    return True


@pytest.mark.parametrize("field", FIELDS)
@given(anything)
def test_client_and_contract_refuse_the_same_values(
    field: str, agent: tuple[Publisher, FakeProducer], value: Any
) -> None:
    # An id may be a number, and a rank may be left out: the client writes what the contract takes.
    if (field == "doc_id" and type(value) is int) or (field == "rank" and value is None):
        return
    make, event = FIELDS[field]
    trajectory = agent[0].trajectory()
    assert taken_by_client(lambda: make(trajectory, value)) == taken_by_contract(event(value))


@pytest.mark.parametrize("field", ENVELOPES)
@given(anything.filter(lambda value: value is not None))
def test_client_and_contract_refuse_the_same_trajectories(
    field: str, agent: tuple[Publisher, FakeProducer], value: Any
) -> None:
    def make() -> None:
        agent[0].trajectory(**{field: value}).browse("d")

    assert taken_by_client(make) == taken_by_contract(ENVELOPES[field](value))
