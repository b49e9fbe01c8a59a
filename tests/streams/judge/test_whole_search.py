"""The quick reader of search events accepts nothing that the contract does not."""

import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import events
from schemas.events import InvalidEventError, parse
from schemas.judged import adapter
from streams.judge.judging import NO_JUDGEMENT, judged, with_source
from streams.judge.whole_search import Search, trajectory_of
from streams.mine.steps import decode

EVENT = {
    "event_id": "e",
    "trajectory_id": "t",
    "seq": 3,
    "occurred_at": "2026-11-01T12:00:00Z",
    "agent": {"name": "scout", "model": "model-7b"},
    "type": "search",
    "query": "Kőszeg",
    "hits": [{"doc_id": "d", "rank": 1, "score": 0.5}, {"doc_id": "f", "rank": 2}],
}

_KINDS = {
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "type",
    "format",
    "items",
    "required",
    "additionalProperties",
    "properties",
}


def constraints(schema, definitions):
    """A JSON Schema without titles, descriptions, defaults and references."""
    if "$ref" in schema:
        return constraints(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return sorted((constraints(part, definitions) for part in schema["anyOf"]), key=str)
    found = {name: value for name, value in schema.items() if name in _KINDS}
    if "items" in found:
        found["items"] = constraints(found["items"], definitions)
    if "properties" in found:
        found["properties"] = {
            name: constraints(part, definitions) for name, part in found["properties"].items()
        }
    found["required"] = sorted(found.get("required", ()))
    return found


def test_it_has_the_fields_and_bounds_of_the_contract():
    quick = msgspec.json.schema(Search)
    contract = events.Search.model_json_schema()
    wanted = constraints(contract, contract["$defs"])
    found = constraints(quick, quick["$defs"])
    # The contract's union asks for the type, its model does not; both know one value for it.
    wanted["required"] = sorted([*wanted["required"], "type"])
    assert wanted["properties"].pop("type")
    assert found["properties"].pop("type")
    assert found == wanted


def test_a_search_is_recognised():
    assert trajectory_of(json.dumps(EVENT).encode()) == "t"


@pytest.mark.parametrize("version", ["1.0", "1.7", "1.999999"])
def test_every_minor_version_will_do_as_long_as_it_adds_no_field(version):
    value = EVENT | {"schema_version": version}
    assert trajectory_of(json.dumps(value).encode()) == "t"
    assert trajectory_of(json.dumps(value | {"mood": "calm"}).encode()) is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"no JSON",
        b'{"hits": []}',
        json.dumps(EVENT | {"schema_version": "2.0"}).encode(),
        json.dumps(EVENT | {"type": "browse"}).encode(),
        json.dumps({k: v for k, v in EVENT.items() if k != "type"}).encode(),
    ],
)
def test_anything_else_is_left_to_the_contract(value):
    assert trajectory_of(value) is None


_odd = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-2, 2)
    | st.floats()
    | st.text()
    | st.sampled_from(["a", "é", "🌍"]).flatmap(
        lambda mark: st.sampled_from([127, 128, 129, 256, 257, 512, 513]).map(mark.__mul__)
    )
    | st.sampled_from(
        [
            *("1.0", "1.0000000", "٣.٣", "1.0\n", "02.1", "1e400"),
            *("2026-11-01", "2026-11-01T24:00:00Z", "2026-11-01 12:00:00.1234567+0100"),
            *("2026-11-01T12:00:00", "2026-11-01T12:00:60Z", "1700000000", "2026-11-01T12Z"),
        ]
    )
    | st.just({})
    | st.just([])
)
_paths = st.sampled_from(
    [
        *((name,) for name in (*EVENT, "tenant", "retriever_version", "schema_version", "text")),
        *(("agent", name) for name in ("name", "model", "mood")),
        *(("hits", 0, name) for name in ("doc_id", "rank", "score", "mood")),
        ("hits", 1),
    ]
)


def changed(path, item):
    event = json.loads(json.dumps(EVENT))
    place = event
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = item
    return event


@given(path=_paths, item=_odd, twice=st.booleans(), gap=st.sampled_from(["", " \n"]))
@example(path=("hits", 0, "rank"), item=1.0, twice=False, gap="")
@example(path=("hits", 0, "score"), item=float("inf"), twice=False, gap="")
@example(path=("hits", 0, "score"), item=None, twice=False, gap="")
@example(path=("schema_version",), item="1.0\n", twice=False, gap="")
def test_what_it_accepts_the_contract_accepts_and_the_miner_reads_alike(path, item, twice, gap):
    """Also with a field that is there twice, and white space around the event."""
    event = json.dumps(changed(path, item))
    if twice:
        event = f"{event[:-1]}, {json.dumps(path[0])}: {json.dumps(EVENT.get(path[0], ''))}}}"
    value = f"{gap}{event}{gap}".encode()
    trajectory_id = trajectory_of(value)
    try:
        parsed = parse(value)
    except InvalidEventError:
        assert trajectory_id is None
        return
    if trajectory_id is None:
        return
    assert trajectory_id == parsed.event.trajectory_id
    assert not parsed.unknown_fields
    slowly = judged(parsed.event, 41, 7, NO_JUDGEMENT).to_json()
    quickly = with_source(value, 41, 7)
    assert decode(quickly) == decode(slowly)
    assert adapter.validate_json(quickly) == adapter.validate_json(slowly)
