"""Formats are recognised; JSON lines, Parquet and texts are read; errors name file and line."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrail_cli.documents.sources import (
    document_of_text,
    lines_of,
    markdown,
    source_of,
    texts_under,
)
from retrail_runtime.corpus_files import Fields
from retrail_runtime.files import zstd
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
        url=["https://a", None, None],
        vector=[[0.1], [0.2], [0.3]],
    )
    source = source_of(file)
    assert (source.count, source.whole) == (3, False)
    first, second, third = source.documents()
    assert first == (f"{file}:1", Document(doc_id="1", title="A", text="of a", url="https://a"))
    assert second == (f"{file}:2", Document(doc_id="2", text="of b"))
    assert isinstance(third[1], InvalidRecordError)
    assert "has no doc_id or _id or id; it has title, text" in str(third[1])


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


def test_a_file_that_is_not_parquet_is_an_error(tmp_path: Path) -> None:
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
    ("make", "format", "messages"),
    [
        (lambda path: None, "auto", "is no file or folder"),
        (lambda path: path.mkdir(), "auto", "holds neither corpus.jsonl"),
        (lambda path: path.mkdir(), "beir", "has no corpus.jsonl"),
        (lambda path: path.mkdir(), "parquet", r"holds no \.parquet file"),
    ],
)
def test_the_error_names_the_reason(
    make: object, format: DocumentFormat, messages: str, tmp_path: Path
) -> None:
    assert callable(make)
    make(tmp_path / "x")
    with pytest.raises(InputError, match=messages):
        source_of(tmp_path / "x", format)


def test_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}\n" * 7))
    assert lines_of(path) == 7


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_folder_of_beir_may_be_compressed(ending: str, tmp_path: Path) -> None:
    pack = gzip.compress if ending == ".gz" else zstd.compress
    (tmp_path / f"corpus.jsonl{ending}").write_bytes(pack(b'{"_id": "a", "text": "x"}\n'))
    source = source_of(tmp_path)
    assert (source.count, source.whole) == (1, False)
    assert [found for _, found in source.documents()] == [Document(doc_id="a", text="x")]


def test_a_folder_is_searched_deeply_and_hidden_and_other_files_are_left(tmp_path: Path) -> None:
    for name in ("b.md", "a.TXT", "deep/er/c.rst", ".git/d.md", "deep/.e.md", "f.png", "g"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / "folder.md").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in texts_under(tmp_path)]
    assert found == ["a.TXT", "b.md", "deep/er/c.rst"]


@pytest.mark.parametrize(
    ("content", "title", "text"),
    [
        ("# Gzip #\n\nOpen it.\n", "Gzip", "# Gzip #\n\nOpen it."),
        ("Intro\n\n## Second\n# First\nx", "First", "Intro\n\n## Second\n# First\nx"),
        ("---\ntitle: 'Gzip: how'\ntags: x\n---\n# Other\n", "Gzip: how", "# Other"),
        ("---\r\ntags: x\r\n---\r\n# Gzip\r\ny", "Gzip", "# Gzip\ny"),
        ("```sh\n# a comment\n```\n# Real\n", "Real", "```sh\n# a comment\n```\n# Real"),
        ("no title\n---\nat all", "", "no title\n---\nat all"),
        ("---\nA text.\n---\nMore.", "", "---\nA text.\n---\nMore."),
    ],
)
def test_markdown_has_a_title_if_it_names_one(content: str, title: str, text: str) -> None:
    assert markdown(content) == (title, text)


def test_a_files_name_is_the_title_that_it_lacks(tmp_path: Path) -> None:
    file = tmp_path / "leave.txt"
    file.write_bytes("\ufeff# 30 days\n".encode())
    assert document_of_text(file, "a/leave.txt") == Document(
        doc_id="a/leave.txt", title="leave", text="# 30 days"
    )


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"ab\xff", "is not UTF-8 (byte 2)"), (b" \n", "holds no text"), (b"---\n---\n", "no text")],
)
def test_what_holds_no_text_is_named(content: bytes, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "x.md"
    file.write_bytes(content)
    found = document_of_text(file, "x.md")
    assert isinstance(found, InvalidRecordError)
    assert complaint in str(found)
