"""The default corpus: the documentation of the standard library of the Python that runs it.

A docstring is split in two. Its first sentence, with the object's name masked, is a need; the rest
is the document that serves it. So query and document share a subject but few words, and nothing is
downloaded or labelled.
"""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.documents import Document
from schemas.errors import RetrailError
from simulation.corpus import Corpus, Need

MIN_DOCUMENT = 105
"""Characters of the shortest document: about 1,750 of them in Python 3.11."""

MIN_NEED_WORDS = 4
MAX_NEED = 300
MASK = "___"

_SIGNATURE = re.compile(r"^\S*\w\(.*\)(\s*(->|:|=).*)?$")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`'\"(*<\[-])|\n\s*\n|:\n")
_READER = Path(__file__).with_name("stdlib_reader.py")
_READ_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Entry:
    """A documented object; ``home`` if the module that lists it is the one that defines it."""

    name: str
    home: bool
    doc: str


def load() -> Corpus:
    """Read the corpus; the same Python gives the same one.

    Raises:
        RetrailError: the child process that imports the standard library failed.
    """
    version = ".".join(map(str, sys.version_info[:3]))
    return build(read_entries(), name=f"Python {version} standard library")


def read_entries(packages: Sequence[str] = ()) -> list[Entry]:
    """All docstrings of the packages, or of the standard library, read in a process of its own.

    Raises:
        RetrailError: that process failed.
    """
    command = [sys.executable, "-I", "-W", "ignore", str(_READER), *packages]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_READ_SECONDS,
            check=True,
        )
    except subprocess.SubprocessError as error:
        stderr = getattr(error, "stderr", None) or b""
        raise RetrailError(
            f"The documentation cannot be read ({error}). "
            f"Run it yourself: {' '.join(command)}\n{stderr.decode(errors='replace')[-2000:]}"
        ) from error
    return [Entry(**json.loads(line)) for line in done.stdout.splitlines()]


def build(entries: Iterable[Entry], name: str) -> Corpus:
    """Needs and documents of docstrings; merges equal documents and equal needs."""
    documents: dict[str, Document] = {}
    needs: dict[str, tuple[str, dict[str, int]]] = {}
    for entry in sorted(entries, key=lambda entry: (not entry.home, len(entry.name), entry.name)):
        need, text = split(entry.doc)
        content = " ".join(text.split())
        if not _usable(need, text) or content in documents:
            continue
        documents[content] = Document(doc_id=entry.name, text=text)
        masked = mask(need, entry.name)
        _, relevant = needs.setdefault(masked.casefold(), (masked, {}))
        relevant[entry.name] = 1
    training: list[Need] = []
    unseen: list[Need] = []
    for key in sorted(needs):
        text, relevant = needs[key]
        digest = hashlib.sha256(key.encode()).digest()
        half = unseen if digest[0] % 2 else training
        half.append(Need(digest.hex()[:12], text, relevant))
    return Corpus(
        name,
        tuple(sorted(documents.values(), key=lambda document: document.doc_id)),
        tuple(training),
        tuple(unseen),
    )


def split(doc: str) -> tuple[str, str]:
    """First sentence, on one line, and the rest; leading lines that are signatures are left out.

    >>> split("len(obj, /)\\nReturn the size. It is\\nan int.")
    ('Return the size.', 'It is\\nan int.')
    """
    lines = doc.splitlines()
    while lines and (not lines[0].strip() or _SIGNATURE.match(lines[0].strip())):
        del lines[0]
    text = "\n".join(lines).strip()
    end = _SENTENCE_END.search(text)
    if end is None:
        return " ".join(text.split()), ""
    return " ".join(text[: end.start()].split()), text[end.end() :].strip()


def mask(need: str, name: str) -> str:
    """The need without the object's name, so that it cannot be found by that alone.

    >>> mask("Parse the source with parse() once.", "ast.parse")
    '___ the source with ___ once.'
    """
    parts = {name, name.rsplit(".", 1)[-1], ".".join(name.split(".")[-2:])}
    words = "|".join(re.escape(part) for part in sorted(parts, key=len, reverse=True))
    return re.sub(rf"(?<![\w.])(?:{words})(?:\(\))?(?!\w)", MASK, need, flags=re.IGNORECASE)


def _usable(need: str, text: str) -> bool:
    return (
        len(need.split()) >= MIN_NEED_WORDS and len(need) <= MAX_NEED and len(text) >= MIN_DOCUMENT
    )
