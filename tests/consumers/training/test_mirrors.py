"""The local copy of labelled pairs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from consumers.training.training_pairs import PairStore, Pending

from schemas.pairs import LabelledPair
from schemas.runs import Range
from schemas.settings import Settings
from schemas.topics import Topics
from tests.consumers.training.world import World
from trainer.data.draws import is_held_out


@pytest.fixture
def world(settings: Settings, topics: Topics) -> World:
    return World(settings)


@pytest.fixture
def store(world: World, tmp_path: Path) -> Iterator[PairStore]:
    opened = PairStore(world.settings, tmp_path / "pairs")
    yield opened
    opened.close()


def everything(store: PairStore) -> list[Range]:
    return [
        Range(topic=store.topic, partition=partition, start=0, end=end)
        for partition, end in store.next.items()
    ]


def ids(pairs: Iterator[LabelledPair] | list[LabelledPair]) -> set[str]:
    return {pair.pair_id for pair in pairs}


def test_pairs_by_range_and_id(world: World, store: PairStore) -> None:
    made = world.pairs(40) + world.pairs(5, verdict="irrelevant")
    store.catch_up(30)
    ranges = everything(store)
    assert sum(span.end for span in ranges) == 45
    assert sorted(store.within(ranges), key=lambda p: p.pair_id) == sorted(
        made, key=lambda p: p.pair_id
    )
    relevant = [p for p in made if p.verdict == "relevant"]
    assert ids(store.held_out(ranges)) == {p.pair_id for p in relevant if is_held_out(p.query)}
    trainable = {p.pair_id for p in relevant if not is_held_out(p.query)}
    assert set(store.trainable_ids(ranges)) == trainable
    assert ids(store.get([made[0].pair_id, "0" * 32, made[44].pair_id])) == ids([made[0], made[44]])


def test_ranges_are_half_open_and_of_their_topic(world: World, store: PairStore) -> None:
    world.pairs(20)
    store.catch_up(30)
    some = Range(topic=store.topic, partition=0, start=1, end=3)
    assert len(list(store.within([some]))) == 2
    elsewhere = some.model_copy(update={"topic": "another"})
    assert list(store.within([elsewhere])) == []


def test_of_several_with_one_id_the_first_counts(world: World, store: PairStore) -> None:
    [first] = world.pairs(1)
    world.publish([first.model_copy(update={"query": "another"}), first])
    store.catch_up(30)
    assert list(store.within(everything(store))) == [first]
    assert store.repeats(everything(store)) == 2


def test_pending_counts_from_offsets_on(world: World, store: PairStore) -> None:
    assert store.pending({}) == Pending()
    first = world.pairs(30)
    store.catch_up(30)
    before = dict(store.next)
    pending = store.pending({})
    assert pending.count == sum(not is_held_out(p.query) for p in first)
    assert pending.oldest is not None
    assert store.pending(before) == Pending()
    second = world.pairs(30) + world.pairs(3, verdict="irrelevant")
    store.catch_up(30)
    later = store.pending(before)
    assert later.count == sum(p.verdict == "relevant" and not is_held_out(p.query) for p in second)
    assert later.oldest is not None
    assert later.oldest >= pending.oldest


def test_a_restart_goes_on_where_it_stopped(world: World, tmp_path: Path) -> None:
    made = world.pairs(10)
    store = PairStore(world.settings, tmp_path / "again")
    store.catch_up(30)
    store.close()
    made += world.pairs(10)
    store = PairStore(world.settings, tmp_path / "again")
    try:
        assert sum(store.next.values()) == 10
        store.catch_up(30)
        assert ids(store.within(everything(store))) == ids(made)
        assert store.repeats(everything(store)) == 0
    finally:
        store.close()
