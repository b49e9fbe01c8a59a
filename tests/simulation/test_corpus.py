import gzip
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
    ("name", "text", "message"),
    [
        ("corpus.jsonl", '{"_id": "c", \n', "4: not JSON"),
        ("corpus.jsonl", '{"_id": "c"}\n', "4: has no text; it has _id"),
        ("queries.jsonl", '{"_id": "q3", "text": " "}\n', "3: the text is empty"),
        ("queries.jsonl", '{"_id": "q1", "text": "x"}\n', "1: a later line has"),
        ("qrels/train.tsv", "q1\ta\n", "train.tsv:4: 2 columns"),
        ("qrels/test.tsv", "q2\ta\tx\n", "4: the grade 'x' is not a whole"),
    ],
)
def test_a_broken_line_is_left_out_and_named(
    folder: Path, name: str, text: str, message: str
) -> None:
    append(name, text)(folder)
    found = load_beir(folder)
    assert len(found.documents) == 2
    (left_out,) = found.left_out
    assert message in left_out


def test_cranfield_empty_documents_and_judgements_about_them_are_left_out(folder: Path) -> None:
    """The case of Cranfield: 471 and 995 have no text, and are judged."""
    append("corpus.jsonl", '{"_id": "471", "title": "", "text": ""}\n{"_id": "995", "text": ""}\n')(
        folder
    )
    append("qrels/test.tsv", "q2\t471\t1\nq2\t995\t2\n")(folder)
    found = load_beir(folder)
    assert [d.doc_id for d in found.documents] == ["a", "2"]
    assert found.unseen[0].relevant == {"2": 2, "a": 1}
    assert found.left_out == (
        f"{folder}/corpus.jsonl: the text is empty (2 lines: 4, 5)",
        f"{folder}/qrels/test.tsv: about a line of corpus.jsonl that was left out (2 lines: 4, 5)",
    )


def test_every_file_may_be_compressed(folder: Path) -> None:
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/test.tsv"):
        plain = folder / name
        plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    assert len(load_beir(folder).documents) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (append("qrels/train.tsv", "q9\ta\t1\n"), r"train.tsv:4: 'q9' is not in queries"),
        (append("qrels/test.tsv", "q2\tz\t1\n"), r"test.tsv:4: 'z' is not in corpus"),
        (append("qrels/test.tsv", "q1\ta\t1\n"), r"Query q1 is in both"),
    ],
)
def test_what_does_not_fit_together_is_an_error(
    folder: Path, change: Callable[[Path], None], message: str
) -> None:
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
