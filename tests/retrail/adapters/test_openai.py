"""Search as OpenAI-style tools."""

import asyncio
import json
from typing import Any

import pytest

from retrail import ServeError
from retrail.adapters.openai import DEFINITIONS, RetrailTools
from retrail.http import SearchClient
from schemas.errors import NoIndexError
from serving import tools as contract
from tests.serving.fakes import TEXTS, World


@pytest.fixture
def tools(client: SearchClient) -> RetrailTools:
    return RetrailTools(client.trajectory())


def published(world: World) -> list[Any]:
    return [event for events in world.log.events.values() for event in events]


def test_the_definitions_are_those_of_the_server() -> None:
    for definition, description, request in zip(
        DEFINITIONS,
        (contract.SEARCH, contract.OPEN_DOCUMENT),
        (contract.SearchRequest, contract.OpenRequest),
        strict=True,
    ):
        assert definition["description"] == description
        schema = request.model_json_schema()
        # Names for people; a model pays for each of them.
        del schema["title"], schema["description"]
        for field in schema["properties"].values():
            del field["title"]
        assert definition["parameters"] == schema


def test_the_tools_are_described_in_both_shapes() -> None:
    nested, flat = RetrailTools.tools(), RetrailTools.tools(nested=False)
    assert [tool["function"]["name"] for tool in nested] == ["search", "open_document"]
    assert flat == [{"type": "function", **tool["function"]} for tool in nested]
    search = nested[0]["function"]["parameters"]
    assert search["required"] == ["query"]
    assert search["additionalProperties"] is False
    assert "title" not in json.dumps(search)
    assert all(field["description"] for field in search["properties"].values())


def test_calls_are_answered_and_published(world: World, tools: RetrailTools) -> None:
    found = json.loads(tools.call("search", '{"query": "open a gzip file", "k": 1}'))
    [trajectory] = world.log.events
    assert found == {
        "hits": [{"doc_id": "gzip", "title": "gzip", "score": 0.4, "snippet": TEXTS["gzip"]}],
        "trajectory_id": trajectory,
    }
    opened = json.loads(tools.call("open_document", {"doc_id": "gzip"}))
    assert opened == {
        "doc_id": "gzip",
        "title": "gzip",
        "text": TEXTS["gzip"],
        "trajectory_id": trajectory,
    }
    tools.call("search", {"query": "zip", "k": 1, "reasoning": "It helped."})
    kinds = [event[0] for event in published(world)]
    assert kinds == ["search", "browse", "reasoning", "search"]


def test_awaited_calls_are_answered_alike(world: World, tools: RetrailTools) -> None:
    async def work() -> list[str]:
        return [
            await tools.acall("search", '{"query": "open a gzip file", "k": 1}'),
            await tools.acall("open_document", '{"doc_id": "absent", "reasoning": "A guess."}'),
            await tools.acall("open_document", "{"),
        ]

    found, absent, unreadable = map(json.loads, asyncio.run(work()))
    assert found["hits"][0]["doc_id"] == "gzip"
    assert "no document with this id" in absent["error"]
    assert "JSON" in unreadable["error"]
    assert [event[0] for event in published(world)] == ["search", "reasoning"]


def test_what_the_model_wrote_beside_a_call_comes_first(client: SearchClient, world: World) -> None:
    trajectory = client.trajectory()
    trajectory.reason("Let me see.")
    RetrailTools(trajectory).call("search", {"query": "zip", "k": 1, "reasoning": "It is new."})
    assert published(world)[:2] == [("reasoning", "Let me see."), ("reasoning", "It is new.")]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("find", "{}", "There is no tool find; there are search and open_document"),
        ("search", "{", "JSON"),
        ("search", "[]", "JSON object"),
        ("search", "{}", "query: Field required"),
        ("search", '{"query": " \\n"}', "blank"),
        ("search", '{"query": "a", "k": 1000}', "k: Input should be less than or equal to 100"),
        ("search", '{"query": "a", "top": 1}', "top: Extra inputs are not permitted"),
        ("search", '{"query": "a", "reasoning": 1}', "reasoning: Input should be a valid string"),
        ("open_document", {"doc_id": "absent"}, "no document with this id"),
    ],
)
def test_a_mistake_of_the_model_is_answered(
    name: str, arguments: Any, message: str, tools: RetrailTools, world: World
) -> None:
    assert message in json.loads(tools.call(name, arguments))["error"]
    assert published(world) == []


def test_a_failure_of_the_index_is_raised_and_not_published(
    tools: RetrailTools, world: World
) -> None:
    world.retriever.failure = NoIndexError("none")
    with pytest.raises(ServeError, match="no index yet"):
        tools.call("search", {"query": "a", "reasoning": "r"})
    assert published(world) == []
