"""Corpora that are written as folders."""

from pathlib import Path

import pytest
import structlog

from schemas.documents import Document
from simulation import corpora, stdlib_corpus
from simulation.corpus import Corpus, Need, load_beir, write_beir
from simulation.stdlib_corpus import Entry


def test_a_written_corpus_is_read_again(tmp_path: Path) -> None:
    corpus = Corpus(
        "folder",
        (Document(doc_id="a", title="T", text="Älpha."), Document(doc_id="b", text="Beta.")),
        (Need("n1", "first\tone?", {"a": 1, "b": 2}),),
        (Need("n2", "second?", {"b": 1}),),
    )
    write_beir(corpus, tmp_path / "folder")
    write_beir(corpus, tmp_path / "folder")
    assert load_beir(tmp_path / "folder") == corpus


def test_a_sample_keeps_all_names_of_a_text() -> None:
    some = [Entry(f"{where}.{n}", True, f"text {n}") for n in range(50) for where in "ab"]
    found = corpora.sample(some, 20)
    assert len({each.doc for each in found}) == 20
    assert len(found) == 40
    assert found == corpora.sample(some, 30)[:40]
    assert sorted(each.name for each in corpora.sample(some, None)) == sorted(e.name for e in some)


def test_docstrings_of_a_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpora.main(["docstrings", "structlog", "--output", str(tmp_path / "out")])
    corpus = load_beir(tmp_path / "out")
    assert f"{len(corpus.documents)} documents" in capsys.readouterr().out
    assert corpus.needs > 20
    assert all(document.doc_id.startswith("structlog.") for document in corpus.documents)


def test_what_other_packages_define_is_left_out() -> None:
    names = {entry.name for entry in stdlib_corpus.read_entries(["structlog"])}
    assert "structlog.get_logger" in names
    assert structlog.stdlib.partial.__doc__
    assert "structlog.stdlib.partial" not in names


def test_only_code_and_its_output_without_the_name_are_the_document() -> None:
    doc = "Add two things. Or three.\n\nExamples\n========\n\n>>> add(1,\n...     2)\n3\n\nMore.\n"
    found = corpora.only_examples(Entry("a.add", True, doc))
    assert found == Entry("a.add", True, "Add two things.\n\n>>> ___(1,\n    2)\n3\n")
    assert corpora.only_examples(Entry("a.add", True, "Add two things. Or three.")) is None
    assert corpora.only_examples(Entry("a.add", True, "Add.\n\n>>>x")) is None
