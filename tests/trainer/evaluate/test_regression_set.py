from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.errors import InputError
from trainer.evaluate import regression_set

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes a regression set; arguments replace files, ``None`` omits one."""

    def _write(**contents: str | None) -> Path:
        defaults: dict[str, str | None] = {
            "queries_tsv": "q1\topen a file\nq2\tread lines\n",
            "qrels_txt": "q1 0 d1 1\n",
        }
        for name, content in (defaults | contents).items():
            if content is not None:
                (tmp_path / name.replace("_", ".")).write_text(content)
        return tmp_path

    return _write


def test_grades_by_text_of_the_query(write: Write) -> None:
    folder = write(qrels_txt="q1 0 d1 2\nq1\t0\td2\t0\n\nq2 Q0 d1 1\n")

    assert regression_set.load(folder) == {
        "open a file": {"d1": 2, "d2": 0},
        "read lines": {"d1": 1},
    }


def test_queries_may_be_json_lines_as_in_beir(write: Write) -> None:
    lines = '{"_id": "q1", "text": "open"}\r\n{"_id": 2, "text": "read", "metadata": {}}\r\n'
    folder = write(queries_tsv=None, queries_jsonl=lines, qrels_txt="q1 0 d1 1\n2 0 d2 1\n")

    assert regression_set.load(folder) == {"open": {"d1": 1}, "read": {"d2": 1}}


def test_repeated_queries_and_judgements_are_merged(write: Write) -> None:
    folder = write(
        queries_tsv="q1\topen a file\nq2\topen a file\n",
        qrels_txt="q1 0 d1 1\nq2 0 d1 3\nq2 0 d2 -2\n",
    )

    assert regression_set.load(folder) == {"open a file": {"d1": 3, "d2": 0}}


def test_queries_without_a_relevant_document_are_left_out(write: Write) -> None:
    folder = write(qrels_txt="q1 0 d1 1\nq2 0 d1 0\n")

    assert set(regression_set.load(folder)) == {"open a file"}


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ({"qrels_txt": "q1 0 d1 1\nq1 d1\n"}, r"qrels\.txt:2: 2 columns; expected query id"),
        ({"qrels_txt": "q1 0 d1 high\n"}, r"qrels\.txt:1: the grade 'high' is not a whole number"),
        ({"qrels_txt": "q1 0 d1 1.5\n"}, r"qrels\.txt:1: the grade '1\.5' is not a whole number"),
        ({"qrels_txt": "\nq9 0 d1 1\n"}, r"qrels\.txt:2: query 'q9' is not in queries\.tsv"),
        ({"qrels_txt": "q1 0 d1 0\n"}, r"qrels\.txt: no query has a document of grade 1"),
        ({"qrels_txt": None}, r"qrels\.txt is missing.*TREC"),
        ({"queries_tsv": "q1\topen\nq1\tread\n"}, r"queries\.tsv:2: query 'q1' occurs twice"),
        ({"queries_tsv": "q1 open\n"}, r"queries\.tsv:1: expected query id <tab> text"),
        ({"queries_tsv": "q1\t \n"}, r"queries\.tsv:1: the text is empty"),
        ({"queries_tsv": None}, r"queries\.tsv and queries\.jsonl are missing"),
        ({"queries_jsonl": "{}"}, r"both queries\.tsv and queries\.jsonl exist"),
        (
            {"queries_tsv": None, "queries_jsonl": '{"_id": "q1", "text": "a"}\n{"_id'},
            r"queries\.jsonl:2: not JSON",
        ),
        (
            {"queries_tsv": None, "queries_jsonl": '["q1"]'},
            r"queries\.jsonl:1: a JSON object is expected, not list",
        ),
    ],
)
def test_an_invalid_line_is_named(write: Write, contents: dict[str, str | None], said: str) -> None:
    with pytest.raises(InputError, match=said):
        regression_set.load(write(**contents))


def test_a_line_that_is_not_utf8_is_named(write: Write) -> None:
    folder = write()
    (folder / "queries.tsv").write_bytes(b"q1\topen\nq2\t\xff\n")

    with pytest.raises(InputError, match=r"queries\.tsv:2: not UTF-8"):
        regression_set.load(folder)


def test_a_regression_set_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"RETRAIL_GATE_REGRESSION.*qrels\.txt"):
        regression_set.load(tmp_path / "missing")
