"""What a path holds is found out; Parquet is read; what cannot be read says why."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrail_cli.documents.document_files import BadLine, Fields
from retrail_cli.documents.document_format import Format
from retrail_cli.documents.document_sources import source_of
from schemas.documents import Document
from schemas.errors import InputError


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
    assert isinstance(third[1], BadLine)
    assert "doc_id: Field required" in third[1].complaint


def test_a_folder_of_parquet_is_read_in_order_by_the_named_columns(tmp_path: Path) -> None:
    table(tmp_path / "1.parquet", pid=["b"], passage=["of b"], text=["not this"])
    table(tmp_path / "0.parquet", pid=["a"], passage=["of a"], text=["not this"])
    source = source_of(tmp_path, Format.auto, Fields(doc_id=("pid",), text=("passage",)))
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
        (lambda path: None, Format.auto, "is no file or folder"),
        (lambda path: path.mkdir(), Format.auto, "holds neither corpus.jsonl"),
        (lambda path: path.mkdir(), Format.beir, "has no corpus.jsonl"),
        (lambda path: path.mkdir(), Format.parquet, r"holds no \.parquet file"),
    ],
)
def test_what_cannot_be_read_says_why(
    make: object, format: Format, said: str, tmp_path: Path
) -> None:
    assert callable(make)
    make(tmp_path / "x")
    with pytest.raises(InputError, match=said):
        source_of(tmp_path / "x", format)
