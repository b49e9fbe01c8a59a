"""The local mirrors of pairs, documents and outcomes."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consumers.indexing.comparison import DocumentHashes
from consumers.training.mirrors import DocumentMirror, OutcomeMirror, PairMirror, Pending
from retrail import Publisher
from retrail_runtime import kafka
from schemas import documents
from schemas.documents import Document
from schemas.events import OutcomeReport
from schemas.pairs import LabelledPair
from schemas.runs import Range
from schemas.settings import Settings
from schemas.topics import Topics
from tests.consumers.training.world import World, metric
from trainer.data.draws import draw_of, is_held_out


@pytest.fixture
def world(settings: Settings, topics: Topics) -> World:
    return World(settings)


@pytest.fixture
def store(world: World, tmp_path: Path) -> Iterator[PairMirror]:
    opened = PairMirror(world.settings, world.topics.labelled_pairs, tmp_path / "pairs")
    yield opened
    opened.close()


def everything(store: PairMirror) -> list[Range]:
    return [
        Range(topic=store.topic, partition=partition, start=0, end=end)
        for partition, end in store.next.items()
    ]


def ids(pairs: Iterator[LabelledPair] | list[LabelledPair]) -> set[str]:
    return {pair.pair_id for pair in pairs}


def test_pairs_are_found_by_range_and_id(world: World, store: PairMirror) -> None:
    made = world.pairs(40) + world.pairs(5, verdict="irrelevant")
    store.catch_up()
    ranges = everything(store)
    assert sum(span.end for span in ranges) == 45
    assert sorted(store.within(ranges), key=lambda p: p.pair_id) == sorted(
        made, key=lambda p: p.pair_id
    )
    relevant = [p for p in made if p.verdict == "relevant"]
    assert ids(store.held_out(ranges)) == {p.pair_id for p in relevant if is_held_out(p.query)}
    trainable = {p.pair_id for p in relevant if not is_held_out(p.query)}
    assert ids(store.in_turn(ranges)) == trainable
    assert ids(store.get([made[0].pair_id, "0" * 32, made[44].pair_id])) == ids([made[0], made[44]])


def test_ranges_are_half_open_and_of_their_topic(world: World, store: PairMirror) -> None:
    world.pairs(20)
    store.catch_up()
    some = Range(topic=store.topic, partition=0, start=1, end=3)
    assert len(list(store.within([some]))) == 2
    elsewhere = some.model_copy(update={"topic": "another"})
    assert list(store.within([elsewhere])) == []


def test_the_first_pair_of_an_id_counts(world: World, store: PairMirror) -> None:
    [first] = world.pairs(1)
    world.publish([first.model_copy(update={"query": "another"}), first])
    store.catch_up()
    assert list(store.within(everything(store))) == [first]
    assert store.repeats(everything(store)) == 2


def test_pending_pairs_are_counted_from_an_offset(world: World, store: PairMirror) -> None:
    assert store.pending({}) == Pending()
    first = world.pairs(30)
    store.catch_up()
    before = dict(store.next)
    pending = store.pending({})
    assert pending.count == sum(not is_held_out(p.query) for p in first)
    assert pending.oldest is not None
    assert store.pending(before) == Pending()
    second = world.pairs(30) + world.pairs(3, verdict="irrelevant")
    store.catch_up()
    later = store.pending(before)
    assert later.count == sum(p.verdict == "relevant" and not is_held_out(p.query) for p in second)
    assert later.oldest is not None
    assert later.oldest >= pending.oldest


def test_pairs_are_drawn_from_ranges_without_reading_all(world: World, store: PairMirror) -> None:
    made = world.pairs(60)
    store.catch_up()
    one = [span for span in everything(store) if span.end > 1][:1]
    inside = {p.pair_id for p in store.within(one)}
    half = one[0].end // 2
    pieces = [
        one[0].model_copy(update={"end": half}),
        one[0].model_copy(update={"start": half}),
    ]
    for held_out in (False, True):
        wanted = sorted(
            (p.pair_id for p in made if p.pair_id in inside and is_held_out(p.query) == held_out),
            key=draw_of,
        )
        found = [p.pair_id for p in store.in_turn(pieces, held_out=held_out)]
        assert found == wanted
        middle = draw_of(wanted[len(wanted) // 2])
        turned = [p.pair_id for p in store.in_turn(one, middle, held_out=held_out)]
        assert turned == sorted(wanted, key=lambda name: (draw_of(name) < middle, draw_of(name)))
    assert list(store.in_turn([])) == []
    assert len(list(store.held_out(everything(store), 3))) == 3
    assert store.newest(one) == max(store.newest([piece]) for piece in pieces)


def test_pairs_are_found_by_the_queries_that_they_asked(world: World, store: PairMirror) -> None:
    held, free = (
        next(q for q in (f"{word} {n}" for n in range(99)) if is_held_out(q) == wanted)
        for word, wanted in (("held", True), ("free", False))
    )
    made = [
        world.pair(query=held, earlier_queries=("Asked  before",)),
        world.pair(query=free, earlier_queries=("asked first", held)),
        world.pair(query=f" {free.upper()}"),
        world.pair(query=free, verdict="irrelevant"),
    ]
    world.publish(made)
    store.catch_up()
    every = everything(store)
    asked = [held, free, "asked before", "asked first", "never"]
    assert ids(store.asking(asked, every, held_out=True)) == ids(made[:1])
    of_query, of_earlier = store.asking([held, *asked], every)
    assert of_query.pair_id in ids(made[1:3])
    assert of_earlier.pair_id == made[1].pair_id
    assert list(store.asking(asked, [])) == []


def test_every_look_up_uses_an_index(
    world: World, store: PairMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world.pairs(20)
    store.catch_up()
    statements: list[str] = []
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        db = connect(*arguments, **options)
        db.set_trace_callback(statements.append)
        return db

    monkeypatch.setattr("retrail_runtime.mirror.sqlite3.connect", traced)
    every = everything(store)
    store.pending({})
    store.newest(every)
    store.repeats(every)
    store.get([made[0].pair_id])
    for found in (
        store.within(every),
        store.held_out(every),
        store.in_turn(every, 1),
        store.in_turn(every, held_out=True),
        store.asking([p.query for p in made], every),
    ):
        list(found)
    monkeypatch.undo()
    with store.reading() as db:
        for statement in {one for one in statements if one.startswith("SELECT")}:
            plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]
            assert all("SEARCH" in step for step in plan), (statement, plan)


def test_a_restart_continues_at_the_stored_offset(world: World, tmp_path: Path) -> None:
    made = world.pairs(10)
    store = PairMirror(world.settings, world.topics.labelled_pairs, tmp_path / "again")
    store.catch_up()
    store.close()
    made += world.pairs(10)
    store = PairMirror(world.settings, world.topics.labelled_pairs, tmp_path / "again")
    try:
        assert sum(store.next.values()) == 10
        store.catch_up()
        assert ids(store.within(everything(store))) == ids(made)
        assert store.repeats(everything(store)) == 0
    finally:
        store.close()


def test_documents_have_their_current_text(
    settings: Settings, topics: Topics, tmp_path: Path
) -> None:
    producer = kafka.producer(settings)
    store = DocumentMirror(settings, topics.documents, tmp_path / "documents")

    def send(*records: tuple[bytes, bytes | None]) -> None:
        kafka.send_all(producer, topics.documents, records)
        store.catch_up()

    def document(doc_id: str, text: str) -> tuple[bytes, bytes]:
        return documents.encode(Document(doc_id=doc_id, title="A title", text=text))

    send(document("a", "old"), document("b", "other"), document("a", "new"), document("c", "x"))
    found = store.get(["a", "b", "a", "absent"])
    assert {doc_id: item.text for doc_id, item in found.items()} == {"a": "new", "b": "other"}
    assert found["a"].embedded_text() == "A title\nnew"
    assert sorted(store.sample(9, seed=0)) == ["a", "b", "c"]
    samples = [store.sample(2, seed) for seed in range(20)]
    assert samples == [store.sample(2, seed) for seed in range(20)]
    assert {len(set(some)) for some in samples} == {2}
    assert {doc_id for some in samples for doc_id in some} == {"a", "b", "c"}
    send(documents.encode_deletion("c"))
    assert store.known(["a", "b", "c"]) == {"a": "", "b": ""}
    assert store.owners() == set()
    owned = Document(doc_id="f", text="x", tenant="one")
    send(documents.encode(owned))
    assert (store.known(["f"]), store.owners()) == ({"f": "one"}, {"one"})
    assert store.get(["f"]) == {"f": owned}
    send(documents.encode_deletion("f"))
    assert store.owners() == set()
    send((b"a", b"{"), (b"d", b'{"doc_id": "d"}'), (b"e", document("b", "x")[1]))
    assert store.sample(9, seed=0) == ["b"], "a malformed record removes the document of its key"
    hashes = DocumentHashes(settings, topics.documents, tmp_path / "hashes")
    hashes.catch_up()
    assert set(hashes.page("")) == {"b"}, "the index disagrees"
    hashes.close()
    store.close()


def test_the_last_report_counts_and_a_snapshot_has_its_ranges(
    world: World, settings: Settings, topics: Topics, tmp_path: Path
) -> None:
    pairs = [world.pair(trajectory_id=name, outcome="unknown") for name in "abcde"]
    store = OutcomeMirror(settings, topics.outcomes, tmp_path / "copies")
    with Publisher(
        "me", bootstrap=settings.kafka_bootstrap, topic_prefix=settings.topic_prefix
    ) as publisher:
        publisher.outcome("a", "incorrect")
        publisher.outcome("a", "correct", source="user")
        publisher.outcome("b", "incorrect")
        publisher.outcome("c", "correct")
    foreign = OutcomeReport(trajectory_id="d", outcome="correct", reported_at=datetime.now(UTC))
    kafka.send_all(
        kafka.producer(settings),
        topics.outcomes,
        [(b"c", None), (b"a", b"no report"), (b"e", foreign.to_json())],
    )
    before = metric("retrail_consumer_invalid_records_total", stage="outcomes")
    store.catch_up()
    assert metric("retrail_consumer_invalid_records_total", stage="outcomes") == before + 2
    with store.snapshot() as known:
        unknown = ["unknown"] * 3
        assert [known.of(pair) for pair in pairs] == ["unknown", "incorrect", *unknown]
        own = pairs[4].model_copy(update={"outcome": "correct"})
        assert known.of(own) == "correct", "without a report its own counts"
        assert sum(span.end - span.start for span in known.ranges) == 7
        assert {span.topic for span in known.ranges} == {topics.outcomes}
        with Publisher(
            "me", bootstrap=settings.kafka_bootstrap, topic_prefix=settings.topic_prefix
        ) as publisher:
            publisher.outcome("b", "correct")
        store.catch_up()
        assert known.of(pairs[1]) == "incorrect"
    with store.snapshot() as known:
        assert known.of(pairs[1]) == "correct"
    store.close()
