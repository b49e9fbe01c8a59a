"""Formats are recognised; JSON lines, Parquet and texts are read; errors name file and line."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrail_cli.documents.sources import Fields, documents_of_lines, lines_of, source_of
from schemas import DocumentFormat
from schemas.documents import Document
from schemas.errors import InputError, InvalidRecordError


def table(path: Path, **columns: list[object]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_rows_of_parquet_are_documents(tmp_path: Path) -> None:
    file = table(
        tmp_path / "a.parquet",
        id=[1, 2, None],
        title=["A", None, "C"],
        text=["of a", "of b", "of c"],
        vector=[[0.1], [0.2], [0.3]],
    )
    source = source_of(file)
    assert (source.count, source.whole) == (3, False)
    first, second, third = source.documents()
    assert first == (f"{file}:1", Document(doc_id="1", title="A", text="of a"))
    assert second == (f"{file}:2", Document(doc_id="2", text="of b"))
    assert isinstance(third[1], InvalidRecordError)
    assert "doc_id: Field required" in str(third[1])


def test_a_folder_of_parquet_is_read_in_order_by_the_named_columns(tmp_path: Path) -> None:
    table(tmp_path / "1.parquet", pid=["b"], passage=["of b"], text=["not this"])
    table(tmp_path / "0.parquet", pid=["a"], passage=["of a"], text=["not this"])
    source = source_of(tmp_path, "auto", Fields(doc_id=("pid",), text=("passage",)))
    assert source.count == 2
    assert [found for _, found in source.documents()] == [
        Document(doc_id="a", text="of a"),
        Document(doc_id="b", text="of b"),
    ]


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    file = table(tmp_path / "a.parquet", pid=["b"], text=["x"])
    with pytest.raises(InputError, match=r"no column doc_id or _id or id; it has pid, text.*--id-"):
        list(source_of(file).documents())


def test_what_is_no_parquet_says_so(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    file.write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match=r"a\.parquet cannot be read"):
        source_of(file)


@pytest.mark.parametrize(
    ("names", "count", "whole"),
    [
        (["corpus.jsonl", "x.parquet", "x.md"], 1, False),
        (["x.md", "y.txt"], 2, True),
    ],
)
def test_a_folder_is_what_its_files_are(
    names: list[str], count: int, whole: bool, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).write_text('{"_id": "a", "text": "x"}\n')
    source = source_of(tmp_path)
    assert (source.count, source.whole) == (count, whole)
    assert len(list(source.documents())) == count


def test_ids_of_texts_are_their_paths(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.md").write_text("# A")
    [(_, found)] = source_of(tmp_path).documents()
    assert isinstance(found, Document)
    assert found.doc_id == "deep/a.md"
    [(_, alone)] = source_of(tmp_path / "deep" / "a.md").documents()
    assert isinstance(alone, Document)
    assert alone.doc_id == "a.md"


@pytest.mark.parametrize(
    ("make", "format", "said"),
    [
        (lambda path: None, "auto", "is no file or folder"),
        (lambda path: path.mkdir(), "auto", "holds neither corpus.jsonl"),
        (lambda path: path.mkdir(), "beir", "has no corpus.jsonl"),
        (lambda path: path.mkdir(), "parquet", r"holds no \.parquet file"),
    ],
)
def test_what_cannot_be_read_says_why(
    make: object, format: DocumentFormat, said: str, tmp_path: Path
) -> None:
    assert callable(make)
    make(tmp_path / "x")
    with pytest.raises(InputError, match=said):
        source_of(tmp_path / "x", format)


def read(tmp_path: Path, *lines: str) -> list[Document | InvalidRecordError]:
    path = tmp_path / "docs.jsonl"
    path.write_text("\n".join(lines))
    found = list(documents_of_lines(path, Fields()))
    numbers = [number for number, line in enumerate(lines, start=1) if line]
    assert [place for place, _ in found] == [f"{path}:{number}" for number in numbers]
    return [document for _, document in found]


def test_both_names_of_an_id_numbers_and_missing_titles(tmp_path: Path) -> None:
    assert read(
        tmp_path,
        '{"doc_id": "a", "title": "A", "text": "of a", "url": "left out"}',
        "",
        '{"_id": "b", "text": "of b", "title": null}',
        '{"_id": 7, "text": "of seven"}',
        '{"_id": "t", "title": "only a title", "text": ""}',
        '{"doc_id": null, "_id": "n", "text": "an empty column beside the id"}',
    ) == [
        Document(doc_id="a", title="A", text="of a"),
        Document(doc_id="b", text="of b"),
        Document(doc_id="7", text="of seven"),
        Document(doc_id="t", text="only a title"),
        Document(doc_id="n", text="an empty column beside the id"),
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not JSON"),
        ("[1]", "a JSON object is expected, not list"),
        ('{"text": "no id"}', "doc_id: Field required"),
        ('{"_id": null, "text": "x"}', "doc_id: Field required"),
        ('{"_id": "", "text": "x"}', "doc_id: String should have at least 1 character"),
        ('{"_id": "a"}', "text: Field required"),
        ('{"_id": "a", "text": ""}', "text: String should have at least 1 character"),
        ('{"_id": "a", "text": 5}', "text: Input should be a valid string"),
        ('{"_id": ["a"], "text": "x"}', "doc_id: Input should be a valid string"),
        ('{"_id": "' + "x" * 513 + '", "text": "x"}', "at most 512"),
        ('{"_id": "a", "title": 5, "text": "x"}', "title: Input should be a valid string"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_read(
    line: str, complaint: str, tmp_path: Path
) -> None:
    first, bad, last = read(
        tmp_path, '{"_id": "a", "text": "x"}', line, '{"_id": "b", "text": "x"}'
    )
    assert isinstance(first, Document)
    assert isinstance(last, Document)
    assert isinstance(bad, InvalidRecordError)
    assert complaint in str(bad)


def test_bytes_that_are_no_text_are_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_bytes(b'{"_id": "a", "text": "\xff"}\n')
    [(_, found)] = documents_of_lines(path, Fields())
    assert isinstance(found, InvalidRecordError)


def test_other_names_of_fields_are_taken_instead(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_text('{"pid": "a", "head": "A", "passage": "of a", "text": "not this"}\n')
    fields = Fields(doc_id=("pid",), title=("head",), text=("passage",))
    [(_, found)] = documents_of_lines(path, fields)
    assert found == Document(doc_id="a", title="A", text="of a")


def test_lines_are_counted_and_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_text("{}\n" * 7)
    assert lines_of(path) == 7
    with pytest.raises(InputError, match="absent cannot be read: No such file"):
        list(documents_of_lines(tmp_path / "absent", Fields()))
