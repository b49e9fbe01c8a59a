"""Documents are read from what people have."""

from pathlib import Path

import pytest

from retrail_cli.documents.document_files import BadLine, Fields, documents_of, lines_of
from schemas.documents import Document
from schemas.errors import InputError


def read(tmp_path: Path, *lines: str) -> list[Document | BadLine]:
    path = tmp_path / "docs.jsonl"
    path.write_text("\n".join(lines))
    return [found for _, found in documents_of(path)]


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
    assert isinstance(bad, BadLine)
    assert bad.place == f"{tmp_path / 'docs.jsonl'}:2"
    assert complaint in bad.complaint


def test_bytes_that_are_no_text_are_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_bytes(b'{"_id": "a", "text": "\xff"}\n')
    [(_, found)] = documents_of(path)
    assert isinstance(found, BadLine)


def test_other_names_of_fields_are_taken_instead(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_text('{"pid": "a", "head": "A", "passage": "of a", "text": "not this"}\n')
    fields = Fields(doc_id=("pid",), title=("head",), text=("passage",))
    [(_, found)] = documents_of(path, fields)
    assert found == Document(doc_id="a", title="A", text="of a")


def test_lines_are_counted_and_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_text("{}\n" * 7)
    assert lines_of(path) == 7
    with pytest.raises(InputError, match="absent cannot be read: No such file"):
        list(documents_of(tmp_path / "absent"))
