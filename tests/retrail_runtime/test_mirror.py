"""The local copy of a topic: contents, deletions, restarts, other topics, broken files."""

import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from hypothesis import given
from hypothesis import strategies as st

from deploy import topics as topics_module
from retrail_runtime import kafka, mirror
from retrail_runtime.mirror import KEYS_AT_ONCE, Row, Table, TopicMirror, rows_of
from schemas.base import Change
from schemas.errors import RestartRequiredError, TopicMismatchError
from schemas.settings import Settings
from schemas.topics import Topics
from tests.consumers.training.world import metric
from tests.waiting import eventually

Send = Callable[..., None]


class LastMirror(TopicMirror):
    """The last value of every key; ``bad`` is no value."""

    table: ClassVar[Table] = Table("things", ("name TEXT", "value TEXT NOT NULL"))

    def decode(self, record: kafka.Record) -> Change[Row]:
        key = (record.key or b"").decode() or None
        if record.value == b"bad":
            return Change(key, None, "it is bad")
        return Change(key, (record.value.decode(),) if record.value else None)

    def values(self) -> dict[str, str]:
        with self.reading() as db:
            return dict(db.execute("SELECT name, value FROM things"))


class FirstMirror(LastMirror):
    """The first value of every key."""

    table: ClassVar[Table] = Table(
        "things", ("name TEXT", "value TEXT NOT NULL"), indices=("value",), compacted=False
    )
    stored: ClassVar[list[tuple[Row, bool]]] = []

    def on_stored(self, _: sqlite3.Connection, row: Row, *, repeated: bool) -> None:
        self.stored.append((row, repeated))


@pytest.fixture
def send(settings: Settings, topics: Topics) -> Send:
    def _send(*records: tuple[str | None, bytes | None]) -> None:
        kafka.send_all(
            kafka.producer(settings),
            topics.documents,
            [(key.encode() if key else None, value) for key, value in records],
        )

    return _send


class Opener:
    """Opens a mirror of ``documents``, after closing the one before."""

    def __init__(self, settings: Settings, topic: str, folder: Path) -> None:
        self._arguments = settings, topic, folder
        self._open: LastMirror | None = None

    def __call__(self, kind: type[LastMirror] = LastMirror) -> LastMirror:
        self.close()
        self._open = kind(*self._arguments)
        return self._open

    def close(self) -> None:
        if self._open:
            self._open.close()
        self._open = None


@pytest.fixture
def opened(settings: Settings, topics: Topics, tmp_path: Path) -> Iterator[Opener]:
    opener = Opener(settings, topics.documents, tmp_path / "mirrors")
    yield opener
    opener.close()


def rebuilds(topics: Topics, reason: str) -> float:
    return metric("retrail_mirror_rebuilds_total", topic=topics.documents, reason=reason)


def test_the_last_value_counts_and_an_empty_or_invalid_one_removes(
    send: Send, opened: Opener
) -> None:
    send(("a", b"old"), ("b", b"x"), ("c", b"x"), ("d", b"x"), ("a", b"new"), ("e", b"bad"))
    store = opened()
    before = metric("retrail_consumer_invalid_records_total", stage="things")
    store.catch_up()
    assert store.values() == {"a": "new", "b": "x", "c": "x", "d": "x"}
    send(("b", None), ("c", b""), ("d", b"bad"))
    store.catch_up()
    assert store.values() == {"a": "new"}
    assert metric("retrail_consumer_invalid_records_total", stage="things") == before + 2


def test_of_an_uncompacted_topic_the_first_value_counts(send: Send, opened: Opener) -> None:
    send(("a", b"first"), ("a", b"second"), ("b", b"x"))
    store = opened(FirstMirror)
    FirstMirror.stored.clear()
    store.catch_up()
    assert store.values() == {"a": "first", "b": "x"}
    assert sorted(FirstMirror.stored) == [(("first",), False), (("second",), True), (("x",), False)]
    with store.reading() as db:
        assert db.execute("SELECT count(*) FROM repeats").fetchone() == (1,)


def test_a_reader_sees_one_moment(send: Send, opened: Opener) -> None:
    send(("a", b"old"))
    store = opened()
    store.catch_up()
    with store.reading() as db:
        assert db.execute("SELECT value FROM things").fetchall() == [("old",)]
        send(("a", b"new"), ("b", b"new"))
        store.catch_up()
        assert db.execute("SELECT value FROM things").fetchall() == [("old",)]
    assert store.values() == {"a": "new", "b": "new"}


def test_a_restart_reads_only_what_is_new(send: Send, opened: Opener) -> None:
    send(*((f"d{n:04}", b"x") for n in range(1200)))
    store, read = opened(), list[int]()
    store.catch_up(lambda topic, count: read.append(count))
    assert sum(read) == 1200
    before = dict(store.next)
    store = opened()
    assert store.next == before
    assert len(store.values()) == 1200
    send(("new", b"x"))
    store.catch_up(lambda topic, count: read.append(count))
    assert sum(read) == sum(store.next.values()) == 1201
    assert "new" in store.values()


def create_again(settings: Settings, topic: str) -> None:
    admin = AdminClient(settings.kafka())
    admin.delete_topics([topic])[topic].result()
    eventually(lambda: topic not in admin.list_topics(timeout=5).topics)
    topics_module.ensure(settings)


def test_a_topic_that_is_created_again_under_a_running_process_ends_it(
    settings: Settings, topics: Topics, send: Send, opened: Opener
) -> None:
    """Before it takes records of the new topic for those that follow on the old one."""
    send(("old", b"x"))
    store = opened()
    store.catch_up()
    create_again(settings, topics.documents)
    send(*((f"new{n}", b"x") for n in range(20)))
    with pytest.raises(RestartRequiredError, match="created again"):
        store.catch_up()
    store = opened()
    store.catch_up()
    assert store.values() == {f"new{n}": "x" for n in range(20)}


def test_a_recreated_topic_is_read_again(
    settings: Settings, topics: Topics, send: Send, opened: Opener
) -> None:
    send(("old", b"x"))
    opened().catch_up()
    create_again(settings, topics.documents)
    send(*((f"new{n}", b"x") for n in range(20)))
    store = opened()
    store.catch_up()
    assert store.values() == {f"new{n}": "x" for n in range(20)}
    assert rebuilds(topics, "topic recreated") == 1


def test_a_topic_that_is_missing_while_it_is_read_makes_the_copy_outdated(
    topics: Topics, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> list[object]:
        raise TopicMismatchError("Kafka has no such topic any more.", topic=topics.documents)

    store = opened()
    monkeypatch.setattr(kafka, "ready", gone)
    with pytest.raises(RestartRequiredError):
        store.poll(0)
    assert store.outdated


def test_a_topic_deleted_under_a_running_process_ends_it(
    settings: Settings, topics: Topics, send: Send, opened: Opener
) -> None:
    send(("a", b"x"))
    store = opened()
    store.catch_up()
    admin = AdminClient(settings.kafka())
    admin.delete_topics([topics.documents])[topics.documents].result()

    def fails() -> bool:
        try:
            store.poll(0.2)
        except RestartRequiredError:
            return True
        return False

    eventually(fails, timeout=60)


def test_new_partitions_are_followed(
    settings: Settings, topics: Topics, send: Send, opened: Opener
) -> None:
    send(*((f"d{n}", b"x") for n in range(10)))
    store = opened()
    store.catch_up()
    count = len(store.next)
    admin = AdminClient(settings.kafka())
    admin.create_partitions([NewPartitions(topics.documents, count + 2)])[topics.documents].result()
    eventually(lambda: len(store.ends()) == count + 2)
    send(*((f"e{n}", b"x") for n in range(30)))
    store.catch_up()
    assert len(store.next) == count + 2
    assert sum(store.next.values()) == len(store.values()) == 40
    store = opened()
    assert sum(store.next.values()) == 40


@pytest.mark.parametrize("pages", [slice(0, 100), slice(4096, None)])
def test_a_file_that_cannot_be_opened_is_rebuilt(
    topics: Topics, send: Send, opened: Opener, pages: slice
) -> None:
    _corrupted(send, opened, pages)
    store = opened()
    assert rebuilds(topics, "corrupted") == 1
    store.catch_up()
    assert len(store.values()) == 500


def test_a_file_that_cannot_be_read_is_rebuilt_at_the_next_start(
    send: Send, opened: Opener
) -> None:
    # The first six pages are the bookkeeping's.
    _corrupted(send, opened, slice(6 * 4096, None))
    store = opened()
    with pytest.raises(RestartRequiredError, match="rebuilt at the next start"):
        store.values()
    store = opened()
    store.catch_up()
    assert len(store.values()) == 500


def _corrupted(send: Send, opened: Opener, pages: slice) -> None:
    send(*((f"d{n}", b"x" * 200) for n in range(500)))
    store = opened()
    store.catch_up()
    opened.close()
    content = bytearray(store.path.read_bytes())
    content[pages] = b"\xff" * len(content[pages])
    store.path.write_bytes(content)


def test_a_copy_with_another_table_is_rebuilt(topics: Topics, send: Send, opened: Opener) -> None:
    send(("a", b"first"), ("a", b"second"))
    opened().catch_up()
    store = opened(FirstMirror)
    store.catch_up()
    assert store.values() == {"a": "first"}
    assert rebuilds(topics, "table changed") == 1


@pytest.mark.parametrize(("kind", "count"), [(LastMirror, 1), (FirstMirror, 0)])
def test_a_copy_of_a_compacted_topic_that_is_too_old_is_rebuilt(
    topics: Topics,
    send: Send,
    opened: Opener,
    kind: type[LastMirror],
    count: int,
) -> None:
    send(("a", b"x"))
    store = opened(kind)
    store.catch_up()
    opened.close()
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute("UPDATE state SET value = value - ? WHERE name = 'read_at'", (7 * 86400,))
    store = opened(kind)
    assert rebuilds(topics, "absent too long") == count
    store.catch_up()
    assert store.values() == {"a": "x"}


def test_a_copy_that_is_ahead_of_its_topic_is_rebuilt(
    topics: Topics, send: Send, opened: Opener
) -> None:
    send(("a", b"x"))
    store = opened()
    store.catch_up()
    opened.close()
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute("UPDATE position SET next = next + 5")
    store = opened()
    assert rebuilds(topics, "topic truncated") == 1
    store.catch_up()
    assert store.values() == {"a": "x"}


def test_a_full_disk_is_named(send: Send, opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    send(("a", b"x"))
    store = opened()

    def full(self: TopicMirror, db: sqlite3.Connection, record: kafka.Record) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(mirror.TopicMirror, "_store", full)
        with pytest.raises(RestartRequiredError, match=r"disk is full.*Free disk space"):
            store.catch_up()
    store = opened()
    store.catch_up()
    assert store.values() == {"a": "x"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mounted("size=1m", folder):
        pytest.skip("this user cannot mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mounted(options: str, folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return shutil.which("mount") is not None and not subprocess.run(command).returncode


def test_a_disk_that_fills_is_named_with_its_free_space_and_nothing_is_lost(
    settings: Settings, topics: Topics, send: Send, small_disk: Path
) -> None:
    send(*((f"d{n}", b"x" * 1000) for n in range(3000)))
    opener = Opener(settings, topics.documents, small_disk)
    with pytest.raises(RestartRequiredError, match=rf"MiB free in {small_disk}.*permissions"):
        opener().catch_up()
    assert mounted("remount,size=50m", small_disk)
    store = opener()
    store.catch_up()
    assert len(store.values()) == 3000
    opener.close()


def test_a_copy_that_cannot_be_opened_is_named(
    settings: Settings, topics: Topics, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RestartRequiredError, match=r"local copy .*file/.*sqlite failed.*MiB free"):
        LastMirror(settings, topics.documents, tmp_path / "file")


def test_a_topic_id_is_read_without_a_line_on_stderr(
    settings: Settings, topics: Topics, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(10):
        assert kafka.topic_id(kafka.admin(settings), topics.documents)
    assert "rdkafka" not in capfd.readouterr().err


@given(st.integers(0, 2 * KEYS_AT_ONCE + 1))
def test_each_key_is_found_once_for_any_number_of_keys(count: int) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE things (name TEXT PRIMARY KEY, number INTEGER)")
        db.executemany("INSERT INTO things VALUES (?, ?)", ((str(n), n) for n in range(count)))
        wanted = [str(n) for n in range(count)] + ["0"] * (count > 0) + ["absent"]
        found = list(rows_of(db, "SELECT number FROM things WHERE name", wanted))
        assert sorted(found) == [(n,) for n in range(count)]
