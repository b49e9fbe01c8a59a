"""Text and Markdown as documents."""

from pathlib import Path

import pytest

from retrail_cli.documents.texts import document_of_text, markdown, texts_under
from schemas.documents import Document
from schemas.errors import InvalidRecordError


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
def test_markdown_has_a_title_where_it_says_one(content: str, title: str, text: str) -> None:
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
