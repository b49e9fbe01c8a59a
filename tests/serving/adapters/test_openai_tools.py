"""Retrail as OpenAI-style tools."""

import json
from typing import Any

import pytest

from schemas.errors import NoIndexError
from serving.adapters.openai_tools import RetrailTools
from tests.serving.adapters.test_langchain import Alone
from tests.serving.fakes import TEXTS, Remembering


@pytest.fixture
def fake() -> Alone:
    return Alone()


@pytest.fixture
def log() -> Remembering:
    return Remembering()


@pytest.fixture
def tools(fake: Alone, log: Remembering) -> RetrailTools:
    given: Any = fake
    return RetrailTools(given, log.trajectory("t", agent="me", model="", tenant=""))


def test_the_tools_are_described_in_both_shapes(tools: RetrailTools) -> None:
    nested, flat = tools.tools(), tools.tools(nested=False)
    assert [tool["function"]["name"] for tool in nested] == ["search", "open_document"]
    assert flat == [{"type": "function", **tool["function"]} for tool in nested]
    search = nested[0]["function"]["parameters"]
    assert search["required"] == ["query"]
    assert search["additionalProperties"] is False
    assert "title" not in json.dumps(search)
    assert all(field["description"] for field in search["properties"].values())


def test_calls_are_answered_and_published(tools: RetrailTools, log: Remembering) -> None:
    found = json.loads(tools.call("search", '{"query": "open a gzip file", "k": 1}'))
    assert found == {
        "hits": [{"doc_id": "gzip", "title": "gzip", "score": 0.4, "snippet": TEXTS["gzip"]}]
    }
    opened = json.loads(tools.call("open_document", {"doc_id": "gzip"}))
    assert opened == {"doc_id": "gzip", "title": "gzip", "text": TEXTS["gzip"]}
    tools.call("search", {"query": "zip", "k": 1, "reasoning": "It helped."})
    assert [event[0] for event in log.events["t"]] == ["search", "browse", "reasoning", "search"]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("find", "{}", "There is no tool find; there are search and open_document"),
        ("search", "{", "JSON"),
        ("search", "{}", "query: Field required"),
        ("search", '{"query": "a", "k": 1000}', "k: Input should be less than or equal to 100"),
        ("search", '{"query": "a", "top": 1}', "top: Extra inputs are not permitted"),
        ("open_document", {"doc_id": "absent"}, "no document with this id"),
    ],
)
def test_a_mistake_of_the_model_is_answered(
    name: str, arguments: Any, said: str, tools: RetrailTools, log: Remembering
) -> None:
    assert said in json.loads(tools.call(name, arguments))["error"]
    assert log.events["t"] == []


def test_a_failure_of_the_index_is_raised_and_not_published(
    fake: Alone, tools: RetrailTools, log: Remembering
) -> None:
    fake.failure = NoIndexError("none")
    with pytest.raises(NoIndexError):
        tools.call("search", {"query": "a", "reasoning": "r"})
    assert log.events["t"] == []


def test_without_a_trajectory_nothing_is_published(fake: Alone) -> None:
    given: Any = fake
    assert "hits" in json.loads(RetrailTools(given).call("search", {"query": "a"}))
