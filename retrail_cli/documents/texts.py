"""Documents in folders of text and Markdown."""

import re
from pathlib import Path

from pydantic import ValidationError

from schemas.base import describe
from schemas.documents import Document
from schemas.errors import InvalidRecordError

MARKDOWN = (".md", ".markdown")
TEXT = (".txt", ".text", ".rst")

_FRONT_MATTER = re.compile(
    r"\A---[ \t]*\n(?=\w[\w -]*:|---|\#)(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)",
    re.DOTALL | re.MULTILINE,
)
_NAMED_TITLE = re.compile(r"^title:[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_HEADING = re.compile(r"^#[ \t]+(.+?)[ \t]*#*$", re.MULTILINE)
_FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def texts_under(folder: Path) -> list[Path]:
    """Text and Markdown files of a folder, also deep in it, sorted; hidden ones are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if is_text(path)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def is_text(path: Path) -> bool:
    """Whether a file's name ends as those of text and Markdown do."""
    return path.suffix.lower() in MARKDOWN + TEXT


def document_of_text(file: Path, doc_id: str) -> Document | InvalidRecordError:
    """The document of one file, or what is wrong with it."""
    try:
        content = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        return InvalidRecordError(f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        return InvalidRecordError(f"is not UTF-8 (byte {error.start})")
    title, text = markdown(content) if file.suffix.lower() in MARKDOWN else ("", content.strip())
    if not text:
        return InvalidRecordError("holds no text")
    try:
        return Document(doc_id=doc_id, title=title or file.stem, text=text)
    except ValidationError as error:
        return InvalidRecordError(describe(error.errors(include_url=False)))


def markdown(content: str) -> tuple[str, str]:
    """Title (front matter, else the first heading of level 1, else nothing) and text of a page.

    >>> markdown("---\\ntitle: Gzip\\n---\\nOpen it.")
    ('Gzip', 'Open it.')
    """
    content = content.replace("\r\n", "\n")
    front = _FRONT_MATTER.match(content)
    text = content[front.end() :] if front else content
    named = _NAMED_TITLE.search(front.group(1)) if front else None
    if named is not None:
        return named.group(1).strip("\"'"), text.strip()
    heading = _HEADING.search(_FENCED.sub("", text))
    return (heading.group(1) if heading else ""), text.strip()
