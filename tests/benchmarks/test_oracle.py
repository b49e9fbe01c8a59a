"""What the oracle learns from: queries of agents, true documents."""

import json
from typing import Any

from benchmarks import oracle
from schemas.documents import Document
from schemas.events import Event, parse
from serving.retriever import Hit
from simulation import fleet
from simulation.corpus import Need
from tests.streams.judged_log import browse, numbered, search
from trainer.data.draws import is_held_out

DOCUMENTS = {
    f"d{n}": Document(doc_id=f"d{n}", text=f"Everything on subject{n}.") for n in range(40)
}
NEEDS = [Need(f"n{n}", f"What is said on subject{n}?", {f"d{n}": 1}) for n in range(40)]


def text_of(doc_id: str) -> str:
    return DOCUMENTS[doc_id].embedded_text()


def search_in_vain(queries: list[str]) -> list[list[Hit]]:
    """Ten documents, among them hardly ever the right one."""
    return [[Hit(f"d{n}", n + 1, 1.0 / (n + 1), "", text_of(f"d{n}")) for n in range(10)]] * len(
        queries
    )


def events_of(*steps: dict[str, Any]) -> list[Event]:
    """One trajectory."""
    return [parse(json.dumps(step).encode()).event for step in numbered("t", steps)]


def world() -> tuple[dict[str, list[Event]], dict[str, Need]]:
    todo = fleet.assignments(NEEDS, 80, seed=0, turn=1)
    needs = {task.mind.trajectory_id: task.need for task in todo}
    return fleet.watch(todo, search_in_vain), needs


def test_every_label_is_true_whether_the_agent_found_it_or_not() -> None:
    trajectories, needs = world()
    found = oracle.examples(trajectories, needs, text_of, count=60, seed=1)
    assert len(found) == len({example.pair_id for example in found}) == 60
    queries = {
        (event.query, name)
        for name, events in trajectories.items()
        for event in events
        if event.type == "search"
    }
    for example in found:
        needed = [needs[name] for query, name in queries if query == example.query]
        assert any(example.positive_id in need.relevant for need in needed)
        assert example.positive_text == text_of(example.positive_id)
        assert example.positive_id not in dict(example.negatives)
        assert not is_held_out(example.query)
        assert example.weight == 1.0
    assert sum(example.positive_id not in {f"d{n}" for n in range(10)} for example in found) > 20


def test_searches_come_by_how_near_they_came_and_the_last_ones_first() -> None:
    vain, shown, both = ["d1", "d2"], ["d1", "d5"], ["d6", "d5"]
    trajectory = events_of(
        search("again", *shown),
        search("first", *vain),
        search("a second", *both),
        browse("d6"),
        browse("d5"),
        search("third", *shown),
        browse("d1"),
        search("fourth", *vain),
        browse("d2"),
        browse("d5"),
        search("again", *vain),
    )
    need = Need("n", "?", {"d5": 1, "d6": 1, "d9": 1})
    found = oracle.examples({"t": trajectory}, {"t": need}, text_of, count=9, seed=1)
    assert [example.query for example in found] == ["a second", "third", "again", "fourth", "first"]
    assert [[doc_id for doc_id, _ in example.negatives] for example in found] == [
        [],
        ["d1"],
        ["d1", "d2"],
        ["d1", "d2"],
        ["d1", "d2"],
    ]


def test_what_was_opened_serves_before_what_was_shown_and_that_before_the_rest() -> None:
    need = Need("n", "?", {"d4": 1, "d5": 1, "d6": 1})
    for hits, browsed, nearest in (
        (["d4", "d5", "d1"], ["d1", "d5"], {"d5"}),
        (["d4", "d5", "d1"], ["d1", "d6"], {"d4", "d5"}),
        (["d1"], ["d1"], {"d4", "d5", "d6"}),
    ):
        trajectory = events_of(search("a query", *hits), *map(browse, browsed))
        chosen = {
            oracle.examples({"t": trajectory}, {"t": need}, text_of, count=1, seed=seed)[
                0
            ].positive_id
            for seed in range(40)
        }
        assert chosen == nearest


def test_the_seed_draws_among_equals() -> None:
    trajectories, needs = world()
    found = oracle.examples(trajectories, needs, text_of, count=30, seed=1)
    assert found == oracle.examples(trajectories, needs, text_of, count=30, seed=1)
    assert found != oracle.examples(trajectories, needs, text_of, count=30, seed=2)
