"""Manual pages as entries of a corpus: the one-line description, then the rest.

Pages are rendered by groff. A page's synopsis is left out, as a docstring's signature is, and so is
what follows the first :data:`MAX_TEXT` characters.
"""

import gzip
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from schemas.errors import InputError, RetrailError
from simulation.stdlib_corpus import Entry, mask

MAX_TEXT = 8_000
"""Characters of the longest document."""

_FILE = re.compile(r"(?P<name>.+)\.(?P<section>[1-8]\w*)(?:\.gz)?")
_GROFF = ("groff", "-k", "-t", "-mandoc", "-Tascii", "-P-c", "-P-b", "-P-u", "-rHY=0", "-rLL=100n")
_RENDER_SECONDS = 60
_HEADING = re.compile(r"^(\S.*)$", re.MULTILINE)
_DESCRIPTION = re.compile(r"\s-+\s")
_LEFT_OUT = {"NAME", "SYNOPSIS"}


def read_entries(folders: Sequence[Path]) -> Iterator[Entry]:
    """All pages below ``folders`` that have a description; links are not followed.

    Raises:
        InputError: a folder has no page.
        RetrailError: groff is missing or failed.
    """
    for folder in folders:
        files = sorted(path for path in folder.rglob("man[1-8]*/*") if _is_page(path))
        if not files:
            raise InputError(f"{folder} has no manual pages (man1/ls.1.gz, …).", path=folder)
        for path in files:
            source = path.read_bytes()
            if path.suffix == ".gz":
                source = gzip.decompress(source)
            if (found := entry(path.name, rendered(source))) is not None:
                yield found


def rendered(source: bytes) -> str:
    """The text of a page, without the titles above and below it.

    Raises:
        RetrailError: groff is missing or failed.
    """
    try:
        done = subprocess.run(
            _GROFF, input=source, capture_output=True, timeout=_RENDER_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise RetrailError(
            f"A manual page cannot be rendered ({error}). Install groff (apt install groff)."
        ) from error
    lines = done.stdout.decode("ascii", "replace").strip().splitlines()
    return "\n".join(lines[1:-1])


def entry(file_name: str, page: str) -> Entry | None:
    """The entry ``man3ssl.BN_new`` of a page ``BN_new.3ssl.gz``; ``None`` without a description.

    The names of all commands or functions that the page describes are masked.
    """
    matched = _FILE.fullmatch(file_name)
    sections = dict(_sections(page))
    names, *description = _DESCRIPTION.split(" ".join(sections.get("NAME", "").split()), 1)
    if matched is None or not description:
        return None
    need = description[0]
    for name in names.split(","):
        if name := name.strip():
            need = mask(need, name)
    text = "\n\n".join(text for title, text in sections.items() if title not in _LEFT_OUT)
    name = f"man{matched['section']}.{matched['name']}"
    return Entry(name, True, f"{need}\n\n{text[:MAX_TEXT]}")


def _sections(page: str) -> Iterable[tuple[str, str]]:
    """Titles, which begin in the first column, and their texts."""
    _, *parts = _HEADING.split(page)
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        yield title.strip(), _unindented(text)


def _unindented(text: str) -> str:
    lines = (" ".join(line.split()) for line in text.strip().splitlines())
    kept = ["", *lines]
    return "\n".join(line for before, line in pairwise(kept) if before or line)


def _is_page(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and _FILE.fullmatch(path.name) is not None
