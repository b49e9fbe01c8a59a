"""What the oracle learns from: queries of agents, true documents."""

from benchmarks import oracle
from schemas.documents import Document
from schemas.events import Event
from simulation import fleet
from simulation.corpus import Need
from simulation.in_memory import Found, watch
from trainer.heldout import is_held_out

DOCUMENTS = {
    f"d{n}": Document(doc_id=f"d{n}", text=f"Everything on subject{n}.") for n in range(40)
}
NEEDS = [Need(f"n{n}", f"What is said on subject{n}?", {f"d{n}": 1.0}) for n in range(40)]


def text_of(doc_id: str) -> str:
    return DOCUMENTS[doc_id].embedded_text()


def search_in_vain(queries: list[str]) -> list[list[Found]]:
    """Ten documents, among them hardly ever the right one."""
    return [[Found(f"d{n}", n + 1, 1.0 / (n + 1), text_of(f"d{n}")) for n in range(10)]] * len(
        queries
    )


def world() -> tuple[dict[str, list[Event]], dict[str, Need]]:
    todo = fleet.assignments(NEEDS, 80, seed=0, turn=1)
    needs = {task.mind.trajectory_id: task.need for task in todo}
    return watch(todo, search_in_vain), needs


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


def test_last_queries_come_first_and_the_seed_draws_among_them() -> None:
    trajectories, needs = world()
    asked = [[e.query for e in events if e.type == "search"] for events in trajectories.values()]
    trainable = [[query for query in queries if not is_held_out(query)] for queries in asked]
    last = {queries[-1] for queries in trainable if queries}
    found = oracle.examples(trajectories, needs, text_of, count=30, seed=1)
    assert {example.query for example in found} <= last
    assert found == oracle.examples(trajectories, needs, text_of, count=30, seed=1)
    assert found != oracle.examples(trajectories, needs, text_of, count=30, seed=2)
    every = oracle.examples(trajectories, needs, text_of, count=10_000, seed=1)
    assert not {example.query for example in every} <= last
