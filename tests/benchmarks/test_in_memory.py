"""The loop without servers: what its agents do is what agents publish and the miner reads."""

import pytest

from benchmarks.in_memory import ExactIndex, Pairs, Texts, mined
from schemas.documents import Document
from schemas.events import End, Search, parse
from schemas.settings import Settings
from simulation import fleet
from simulation.corpus import Need
from tests.tiny_model import write_tiny_model
from tests.trainer.labelled import unlike
from trainer.data.selection import Selector, rules_of
from trainer.model.encoder import Encoder

SUBJECTS = ("apples", "bridges", "clocks", "dragons", "engines", "forests", "glaciers", "harbours")
DOCUMENTS = [
    Document(doc_id=f"d{number}", text=f"All there is to know about {subject} and their history.")
    for number, subject in enumerate(SUBJECTS)
]
NEEDS = [
    Need(f"n{number}", f"Tell me the history of {subject}.", {f"d{number}": 1})
    for number, subject in enumerate(SUBJECTS)
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ExactIndex:
    tiny = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    return ExactIndex(Encoder.load(tiny, precision="float32", device="cpu"), DOCUMENTS)


def test_hits_are_the_nearest_documents(index: ExactIndex) -> None:
    [hits] = index.search_many([DOCUMENTS[3].embedded_text()])
    assert [hit.rank for hit in hits] == list(range(1, 9))
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert (hits[0].doc_id, hits[0].text) == ("d3", DOCUMENTS[3].embedded_text())


def test_trajectories_are_whole_and_the_same_for_a_seed(index: ExactIndex) -> None:
    todo = fleet.assignments(NEEDS, 16, seed=3, turn=1)
    found = fleet.watch(todo, index.search_many, version=7, tenant="t")
    assert list(found) == [task.mind.trajectory_id for task in todo]
    for events in found.values():
        assert [event.seq for event in events] == list(range(len(events)))
        assert isinstance(events[0], Search)
        assert isinstance(events[-1], End)
        assert {(event.tenant, event.retriever_version) for event in events} == {("t", 7)}
        assert [parse(event.to_json()).event for event in events] == events
    assert found == fleet.watch(todo, index.search_many, version=7, tenant="t")


def test_mined_pairs_are_selected_from_memory(index: ExactIndex) -> None:
    todo = fleet.assignments(NEEDS, 40, seed=3, turn=1)
    found = mined(fleet.watch(todo, index.search_many).values(), Settings())
    needs = {task.mind.trajectory_id: task.need for task in todo}
    relevant = [pair for pair in found if pair.verdict == "relevant"]
    right = [pair for pair in relevant if pair.positive in needs[pair.trajectory_id].relevant]
    assert len(right) > 0.8 * len(relevant) > 10

    pairs = Pairs()
    first, second = pairs.add(found[:30]), pairs.add(found[30:])
    assert pairs.within([second, first]) == found[30:] + found[:30]
    selector = Selector(pairs, Texts(DOCUMENTS), rules_of(Settings()), 1, 0, unlike)
    chosen = selector.select([second], [first])
    known = {pair.pair_id: pair for pair in relevant}
    assert chosen.pair_ids
    assert {known[pair_id] for pair_id in chosen.pair_ids} <= set(found[30:])
    assert {known[pair_id] for pair_id in chosen.replayed} <= set(found[:30])
