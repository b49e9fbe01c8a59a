"""`retrail documents` on Apache Kafka: what is sent, what is not, what is deleted."""

import gzip
import secrets
from pathlib import Path
from typing import Any

import pytest

from deploy import topics as deploy_topics
from retrail_runtime.kafka import read_to_end
from schemas.documents import Document, read_change
from schemas.settings import Settings
from schemas.topics import MAX_EVENT_BYTES, Topics
from tests.retrail_runtime.test_corpus_files import CASE_07


@pytest.fixture
def topic(kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Topic":
    settings = Settings(kafka_bootstrap=kafka, topic_prefix=f"t{secrets.token_hex(4)}_")
    monkeypatch.setenv("RETRAIL_KAFKA_BOOTSTRAP", kafka)
    monkeypatch.setenv("RETRAIL_TOPIC_PREFIX", settings.topic_prefix)
    deploy_topics.ensure(settings)
    return Topic(settings)


class Topic:
    """The documents topic of a test."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._read = settings, 0

    def news(self) -> dict[str, Document | None]:
        """Documents that came since the last look, deletions among them."""
        name = Topics.of(self._settings).documents
        records = sorted(read_to_end(self._settings, name), key=lambda r: (r.timestamp, r.offset))
        new, self._read = records[self._read :], len(records)
        changes = [read_change(record.key, record.value) for record in new]
        assert not any(change.error for change in changes)
        return {change.key or "": change.value for change in changes}


def test_what_is_there_is_not_sent_again(retrail: Any, topic: Topic, tmp_path: Path) -> None:
    file = tmp_path / "docs.jsonl"
    file.write_text('{"_id": "a", "text": "x"}\n{"_id": "b", "text": "y"}\n')
    assert "2 sent, 0 unchanged" in retrail("documents", "load", file).out
    assert set(topic.news()) == {"a", "b"}
    assert "0 sent, 2 unchanged" in retrail("documents", "load", file).out
    assert topic.news() == {}
    file.write_text('{"_id": "a", "text": "x"}\n{"_id": "b", "text": "z"}\n')
    assert "1 sent, 1 unchanged" in retrail("documents", "load", file).out
    assert topic.news() == {"b": Document(doc_id="b", text="z")}
    assert "2 sent, 0 unchanged" in retrail("documents", "load", file, "--all").out


def test_deleted_documents_are_gone_and_may_come_again(
    retrail: Any, topic: Topic, tmp_path: Path
) -> None:
    file = tmp_path / "docs.jsonl"
    file.write_text('{"_id": "a", "text": "x"}\n{"_id": "b", "text": "y"}\n')
    retrail("documents", "load", file)
    topic.news()
    done = retrail("documents", "delete", "a", "c")
    assert done.status == 1
    assert "c: there is no such document" in done.err
    assert "1 document is deleted" in done.out
    assert topic.news() == {"a": None}
    assert retrail("documents", "delete", "a").status == 1
    assert "1 sent, 1 unchanged" in retrail("documents", "load", file).out


def test_a_folder_is_chunked_and_parts_that_are_no_more_are_deleted(
    retrail: Any, topic: Topic, tmp_path: Path
) -> None:
    folder = tmp_path / "handbook"
    folder.mkdir()
    page = folder / "leave.md"
    page.write_text("# Leave\n\n" + "Thirty days a year. " * 100)
    load = ("documents", "load", folder, "--prefix", "hb/")
    done = retrail(*load)
    assert done.status == 0, done.err
    first = topic.news()
    assert set(first) == {f"hb/leave.md#{n}" for n in range(len(first))}
    assert len(first) > 2
    assert all(found and found.title == "Leave" for found in first.values())
    assert f"0 sent, {len(first)} unchanged" in retrail(*load).out

    page.write_text("# Leave\n\nThirty days a year.")
    assert f"1 sent, 0 unchanged, {len(first) - 1} deleted" in retrail(*load).out
    gone = {f"hb/leave.md#{n}": None for n in range(1, len(first))}
    short = Document(doc_id="hb/leave.md#0", title="Leave", text="# Leave\n\nThirty days a year.")
    assert topic.news() == {"hb/leave.md#0": short} | gone

    refused = retrail("documents", "delete", "hb/leave.md")
    assert refused.status == 1
    assert "--chunks" in refused.err
    assert retrail("documents", "delete", "hb/leave.md", "--chunks").status == 0
    assert topic.news() == {"hb/leave.md#0": None}


def test_a_document_that_is_cut_from_now_on_replaces_itself_whole(
    retrail: Any, topic: Topic, tmp_path: Path
) -> None:
    file = tmp_path / "docs.jsonl"
    file.write_text('{"_id": "a", "text": "b c d e"}\n{"_id": "z#7", "text": "no part"}\n')
    retrail("documents", "load", file)
    topic.news()
    retrail("documents", "load", file, "--chunk-tokens", "2", "--chunk-overlap", "0")
    news = topic.news()
    assert news.pop("a") is None
    assert set(news) == {"a#0", "a#1", "z#7#0", "z#7"}


def test_what_is_too_large_or_no_document_is_left_out_and_the_rest_goes_on(
    retrail: Any, topic: Topic, tmp_path: Path
) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "a.txt").write_text("x")
    (folder / "bad.txt").write_bytes(b"\xff")
    (folder / "large.txt").write_text("x " * (MAX_EVENT_BYTES // 2))
    done = retrail("documents", "load", folder, "--chunk-tokens", "0")
    assert done.status == 1
    assert f"{folder / 'bad.txt'}: is not UTF-8" in done.err
    assert "document large.txt has 4,19" in done.err
    assert "2 documents were left out" in done.err
    assert set(topic.news()) == {"a.txt"}


def test_case_07_loads_15_of_19_and_names_four(retrail: Any, topic: Topic, tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl.gz"
    file.write_bytes(gzip.compress(CASE_07.encode()))
    done = retrail("documents", "load", file)
    assert done.status == 1
    assert "15 documents of" in done.out
    assert "1 of them has the id of an earlier one and replaced it" in done.err
    assert "4 documents were left out." in done.err
    for line in (4, 5, 8, 17):
        assert f"{file}:{line}: " in done.err
    assert len(topic.news()) == 14


def test_files_with_other_field_names_give_one_message_and_the_options(
    retrail: Any, topic: Topic, tmp_path: Path
) -> None:
    file = tmp_path / "docs.jsonl"
    file.write_text('{"id": "a", "body": "x"}\n' * 30)
    done = retrail("documents", "load", file)
    assert done.status == 1
    assert done.err.count("has no text; it has id, body (30 lines: ") == 1
    assert "--text-field" in done.err
    assert topic.news() == {}


def test_equal_ids_of_several_sources_are_pointed_out(
    retrail: Any, topic: Topic, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(name)
    done = retrail("documents", "load", tmp_path / "one", tmp_path / "two")
    assert done.status == 0
    assert "1 of them has the id of an earlier one" in done.err
    assert "--prefix" in done.err
    found = topic.news()["README.md#0"]
    assert found is not None
    assert found.text == "two"


def test_a_path_that_is_not_there_stops_before_anything_is_sent(
    retrail: Any, topic: Topic, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text('{"_id": "a", "text": "x"}\n')
    done = retrail("documents", "load", tmp_path / "a.jsonl", tmp_path / "absent")
    assert done.status == 1
    assert "absent is no file or folder" in done.err
    assert topic.news() == {}
