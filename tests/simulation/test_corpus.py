from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.errors import InputError
from simulation.corpus import load_beir

MEDQUAD = Path(__file__).resolve().parents[3] / "shared" / "data" / "medquad"

CORPUS = '{"_id": "a", "title": "T", "text": "Alpha."}\n\n{"_id": 2, "text": "Beta."}\n'
QUERIES = '{"_id": "q1", "text": "first?"}\n{"_id": "q2", "text": "second?"}\n'
TRAIN = "query-id\tcorpus-id\tscore\nq1\ta\t1\nq1\t2\t0\n"
TEST = "query-id\tcorpus-id\tscore\nq2\t2\t2\nq2\ta\t1\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "qrels").mkdir()
    for name, content in (
        ("corpus.jsonl", CORPUS),
        ("queries.jsonl", QUERIES),
        ("qrels/train.tsv", TRAIN),
        ("qrels/test.tsv", TEST),
    ):
        (tmp_path / name).write_text(content)
    return tmp_path


def test_reads_documents_and_both_halves_of_the_needs(folder: Path) -> None:
    corpus = load_beir(folder)
    assert [(d.doc_id, d.title, d.text) for d in corpus.documents] == [
        ("a", "T", "Alpha."),
        ("2", "", "Beta."),
    ]
    assert [(n.need_id, n.text, n.relevant) for n in corpus.training] == [
        ("q1", "first?", {"a": 1})
    ]
    assert corpus.unseen[0].relevant == {"2": 2, "a": 1}
    assert corpus.name == folder.name


def test_qrels_may_come_without_a_header(folder: Path) -> None:
    (folder / "qrels" / "train.tsv").write_text("q1\ta\t1\n")
    assert len(load_beir(folder).training) == 1


@pytest.mark.parametrize(
    "name", ["corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/test.tsv"]
)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        load_beir(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is no folder"):
        load_beir(tmp_path / "nowhere")


def append(name: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(path.read_text() + text)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (append("corpus.jsonl", '{"_id": "c", '), r"corpus.jsonl:4: not JSON"),
        (append("corpus.jsonl", "[]\n"), r"corpus.jsonl:4: a JSON object is expected, not list"),
        (append("corpus.jsonl", '{"_id": "c"}\n'), r"corpus.jsonl:4: 'text' is missing"),
        (append("corpus.jsonl", '{"text": "x"}\n'), r"corpus.jsonl:4: '_id' is missing"),
        (append("corpus.jsonl", '{"_id": "a", "text": "x"}\n'), r"corpus.jsonl:4: document 'a'"),
        (append("corpus.jsonl", '{"_id":"c","title":7,"text":"x"}\n'), r"corpus.jsonl:4: title"),
        (append("queries.jsonl", '{"_id": "q3", "text": " "}\n'), r"queries.jsonl:3: 'text'"),
        (append("queries.jsonl", '{"_id": "q1", "text": "x"}\n'), r"queries.jsonl:3: query 'q1'"),
        (append("qrels/train.tsv", "q1\ta\n"), r"train.tsv:4: 2 columns"),
        (append("qrels/train.tsv", "q9\ta\t1\n"), r"train.tsv:4: query 'q9' is not"),
        (append("qrels/test.tsv", "q2\tz\t1\n"), r"test.tsv:4: document 'z' is not"),
        (
            append("qrels/test.tsv", "q2\ta\tgood\n"),
            r"test.tsv:4: the score 'good' is no",
        ),
        (append("qrels/test.tsv", "q1\ta\t1\n"), r"Query q1 is in both"),
    ],
)
def test_a_broken_line_is_named(folder: Path, change: Callable[[Path], None], message: str) -> None:
    change(folder)
    with pytest.raises(InputError, match=message):
        load_beir(folder)


def test_a_split_without_needs_is_an_error(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq2\ta\t0\n")
    with pytest.raises(InputError, match=r"test.tsv: no query has a document"):
        load_beir(folder)


@pytest.mark.skipif(not MEDQUAD.is_dir(), reason="../shared/data/medquad is not there")
def test_reads_medquad() -> None:
    corpus = load_beir(MEDQUAD)
    assert len(corpus.documents) == 2400
    assert len(corpus.training) + len(corpus.unseen) == 2279
    assert corpus.name == "medquad"
