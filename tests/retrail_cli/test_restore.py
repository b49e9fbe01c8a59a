"""`retrail restore-check`: what is missing after a restore, and what contradicts the rest.

tests/lifecycle/test_restore.py restores a whole installation.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from consumers import releases
from retrail_cli.restore import too_far
from retrail_runtime import kafka
from retrail_runtime.mirror import Row, Table, TopicMirror
from schemas import erasures, pairs, runs
from schemas.base import Change
from schemas.documents import Document, encode
from schemas.erasures import Erasure, hashed, key_check
from schemas.releases import Live
from schemas.runs import Range
from schemas.settings import Settings
from schemas.topics import Topics
from tests.streams.judged_log import end, judged_value, numbered
from tests.trained import NOW, a_manifest, a_release, run_of
from tests.trainer.labelled import labelled
from tests.trainer.model_writing import files
from trainer.registry.registry import Registry

KEY = b"a key of the installation"


def span(partition: int, end: int, topic: str = "labelled-pairs") -> Range:
    return Range(topic=topic, partition=partition, start=0, end=end)


class Ids(TopicMirror):
    """A local copy of the ids on a topic."""

    table = Table("ids", ("id TEXT", "length INTEGER NOT NULL"))

    def decode(self, record: kafka.Record) -> Change[Row]:
        return Change((record.key or b"").decode(), (len(record.value or b""),))


def test_the_furthest_offset_of_each_partition_counts() -> None:
    spans = [("run a", span(0, 5)), ("run b", span(0, 9)), ("run c", span(1, 9))]
    spans += [("run d", span(0, 1, "gone"))]
    found = too_far(spans, {("labelled-pairs", 0): 8, ("labelled-pairs", 1): 9})
    assert found == [
        "gone/0 ends at 0, but run d names offsets up to 1.",
        "labelled-pairs/0 ends at 8, but run b names offsets up to 9.",
    ]


@pytest.fixture
def check(retrail: Any, installation: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command; returns its exit status, and the lines of each check."""
    monkeypatch.setenv("RETRAIL_PARTITIONS", str(installation.partitions))
    monkeypatch.setenv("RETRAIL_RETRIEVER", "r")

    def run() -> tuple[int, Callable[[str], list[tuple[str, str]]]]:
        done = retrail("restore-check")
        lines = [line.split(maxsplit=1) for line in done.out.splitlines()]

        def of(what: str) -> list[tuple[str, str]]:
            return [(state, text) for state, text in lines if text.startswith(what)]

        return done.status, of

    return run


@pytest.fixture
def whole(installation: Settings) -> Settings:
    """Two releases with their files, the run of the second one, pairs and their documents."""
    registry, producer = Registry.of(installation), kafka.producer(installation)
    names = Topics.of(installation)
    publish_pairs(installation, 9)
    documents = [encode(Document(doc_id=f"d{n}", text="a text")) for n in range(9)]
    kafka.send_all(producer, names.documents, documents)
    models = {n: registry.publish("r", n, files(a=str(n))) for n in (1, 2)}
    first = a_release(1, None, "first", model=models[1])
    releases.write_release(producer, installation, first)
    ends = [
        Range(topic=names.labelled_pairs, partition=p, start=0, end=high)
        for p, (_, high) in marks(installation, names.labelled_pairs).items()
        if high
    ]
    frozen = registry.store_training_file("r", ())
    manifest = a_manifest(2, ranges=tuple(ends), training_file=frozen)
    key, value = runs.encode(manifest)
    kafka.publish_and_wait(producer, names.training_runs, key=key, value=value)
    releases.write_release(producer, installation, a_release(2, 1, "ship", model=models[2]))
    live = Live(version=2, why="a test", by="operator", changed_at=NOW)
    releases.write_live(producer, installation, live)
    return installation


def publish_pairs(settings: Settings, count: int) -> None:
    """Pairs about the documents d0, d1, …"""
    producer, topic = kafka.producer(settings), Topics.of(settings).labelled_pairs
    kafka.send_all(producer, topic, map(pairs.encode, map(labelled, range(count))))


def marks(settings: Settings, topic: str) -> dict[int, tuple[int, int]]:
    reader = kafka.consumer(settings)
    found = kafka.offsets(reader, topic)
    reader.close()
    return found


def test_nothing_is_missing(check: Any, whole: Settings) -> None:
    status, of = check()
    assert status == 0
    assert of("Live release") == [("ok", f"Live release: 2, its files are in {whole.registry_url}")]
    checks = ("Topics", "Training runs", "Documents of pairs", "Erasures", "Judge", "Local copies")
    assert [of(what)[0][0] for what in checks] == ["ok"] * 6


def test_an_empty_cluster(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRAIL_TOPIC_PREFIX", "nowhere_")
    status, of = check()
    assert status == 1
    assert of("Topics")[0][0] == "missing"
    assert "retrail topics create" in of("Topics")[0][1]


def test_a_topic_with_other_partitions(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRAIL_PARTITIONS", "5")
    status, of = check()
    assert status == 1
    assert "partitions is 3, should be 5" in of("Topics")[0][1]
    assert of("Live release")[0][0] == "missing"


def test_the_registry_lacks_models_and_training_files(check: Any, whole: Settings) -> None:
    folder = Path(whole.registry_url) / "r"
    (folder / "v1.json").unlink()
    shutil.rmtree(folder / "training")
    status, of = check()
    assert status == 0
    assert [state for state, _ in of("Live release")] == ["ok", "look"]
    assert "no training file of" in of("Training runs")[0][1]
    (files_of_2,) = folder.glob("v2-*")
    shutil.rmtree(files_of_2)
    status, of = check()
    assert (status, of("Live release")[0][0]) == (1, "missing")


def test_runs_that_are_not_there_and_runs_beyond_the_pairs(check: Any, whole: Settings) -> None:
    producer, names = kafka.producer(whole), Topics.of(whole)
    far = Range(topic=names.labelled_pairs, partition=1, start=0, end=10**6)
    key, value = runs.encode(a_manifest(3, parent=2, ranges=(far,)))
    kafka.publish_and_wait(producer, names.training_runs, key=key, value=value)
    model = Registry.of(whole).publish("r", 4, files(a="4"))
    releases.write_release(producer, whole, a_release(4, 2, "ship", model=model))
    live = Live(version=4, why="a test", by="operator", changed_at=NOW)
    releases.write_live(producer, whole, live)
    status, of = check()
    assert status == 1
    texts = [text for state, text in of("Training runs") if state == "missing"]
    assert f"no manifest of run {run_of(4)}, which made 4." in texts[0]
    assert "ends at" in texts[1]
    assert "up to 1000000. Restore all of its records at the same offsets." in texts[1]


def test_pairs_without_their_documents(check: Any, whole: Settings) -> None:
    producer, names = kafka.producer(whole), Topics.of(whole)
    kafka.send_all(producer, names.documents, [(b"d0", None)])
    status, of = check()
    assert (status, of("Documents of pairs")[0][0]) == (0, "look")
    assert "1 document of 9" in of("Documents of pairs")[0][1]
    kafka.send_all(producer, names.documents, [(f"d{n}".encode(), None) for n in range(9)])
    status, of = check()
    assert (status, of("Documents of pairs")[0][0]) == (1, "missing")


def test_erasures_under_another_key_and_beyond_the_log(
    check: Any, whole: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Topics.of(whole)
    erasure = Erasure(
        erasure_id="e" * 32,
        kind="tenant",
        subject=hashed(KEY, "tenant", "acme"),
        key_check=key_check(KEY),
        ends=(span(0, 10**6, names.judged_events), span(0, 10**6, names.documents)),
        erased_at=NOW,
    )
    key, value = erasures.encode(erasure)
    kafka.publish_and_wait(kafka.producer(whole), names.erasures, key=key, value=value)
    status, of = check()
    assert (status, of("Erasures")[0][0]) == (1, "missing")
    assert "RETRAIL_ERASE_KEY" in of("Erasures")[0][1]
    monkeypatch.setenv("RETRAIL_ERASE_KEY", KEY.decode())
    status, of = check()
    assert status == 0
    assert [state for state, _ in of("Erasures")] == ["ok", "look"]
    assert "count as erased" in of("Erasures")[1][1]


def test_where_the_judge_begins(check: Any, whole: Settings) -> None:
    """Its events were judged on another log, whose offsets may be those of this one."""
    names, producer = Topics.of(whole), kafka.producer(whole)
    for number in range(4):
        producer.produce(names.trajectory_events, f"{number}".encode(), b"t", partition=1)
    (event,) = numbered("t", [end()])
    for partition, offset in ((1, 2), (2, 7)):
        source = {"source_topic_id": "A" * 22, "source_partition": partition}
        producer.produce(names.judged_events, judged_value(event, offset, 0, **source), b"t")
    producer.produce(names.trajectory_events, b"x", b"t", partition=2)
    assert producer.flush(30) == 0
    status, of = check()
    assert status == 0
    one, two = sorted(text for state, text in of("Judge") if state == "look")
    assert f"3 events of {names.trajectory_events}/1 are judged again." in one
    assert f"--topic {names.trajectory_events}:1 --reset-offsets --to-offset 3 --execute" in one
    assert "it ends at 1: it has other offsets" in two
    judge = Consumer(whole.kafka(group_id=whole.group("judge", revised=True)))
    place = TopicPartition(names.trajectory_events, 1, 3)
    judge.commit(offsets=[place], asynchronous=False)
    judge.close()
    status, of = check()
    assert [text for _, text in of("Judge")] == [two]


def test_local_copies_of_other_topics(check: Any, whole: Settings) -> None:
    names = Topics.of(whole)
    copy = Ids(whole, names.documents, whole.data_dir / "index")
    copy.close()
    assert check()[1]("Local copies") == [("ok", "Local copies")]
    other = whole.data_dir / "train"
    other.mkdir()
    shutil.copy(copy.path, other / f"{names.outcomes}.sqlite")
    ((state, text),) = check()[1]("Local copies")
    assert state == "look"
    assert f"train/{names.outcomes}.sqlite are of other topics" in text
