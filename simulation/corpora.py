"""Writes a corpus from documentation that packages bring, as a folder in BEIR layout.

    python -m simulation.corpora docstrings scipy --output scipy/
    python -m simulation.corpora examples sympy --output examples/
    python -m simulation.corpora manuals pages/ --output manuals/

``docstrings`` reads those of installed packages; ``manuals`` reads manual pages below folders, such
as /usr/share/man or what `dpkg-deb -x` unpacked. A first sentence or one-line description, with the
names masked, is a need; the rest is the document that serves it. Of ``examples`` the document is
only the docstring's code with its output, without the names, which makes it hard to find.
"""

import argparse
import doctest
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from simulation import manual_pages, stdlib_corpus
from simulation.corpus import write_beir
from simulation.stdlib_corpus import Entry


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the corpus and print its size.

    Raises:
        RetrailError: a package or a page cannot be read, or nothing is left.
    """
    options = _parser().parse_args(arguments)
    entries: Iterable[Entry]
    if options.source == "manuals":
        entries = manual_pages.read_entries([Path(name) for name in options.names])
    else:
        entries = stdlib_corpus.read_entries(options.names)
    if options.source == "examples":
        entries = [found for each in entries if (found := only_examples(each)) is not None]
    built = stdlib_corpus.build(sample(entries, options.texts), options.output.name)
    write_beir(built, options.output)
    print(
        f"{options.output}: {len(built.documents):,} documents, {len(built.training):,} needs for "
        f"agents, {len(built.unseen):,} never seen"
    )


def only_examples(entry: Entry) -> Entry | None:
    """The entry with only the code of its docstring, names masked; ``None`` without code."""
    need, text = stdlib_corpus.split(entry.doc)
    try:
        examples = doctest.DocTestParser().get_examples(text)
    except ValueError:
        return None
    code = "".join(f">>> {each.source}{each.want}" for each in examples)
    code = stdlib_corpus.mask(code, entry.name)
    return replace(entry, doc=f"{need}\n\n{code}") if code else None


def sample(entries: Iterable[Entry], most: int | None) -> list[Entry]:
    """The entries of at most ``most`` distinct texts, drawn by a hash of the text."""
    by_draw: dict[bytes, list[Entry]] = {}
    for each in entries:
        by_draw.setdefault(hashlib.sha256(each.doc.encode()).digest(), []).append(each)
    return [each for draw in sorted(by_draw)[:most] for each in by_draw[draw]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simulation.corpora",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", choices=("docstrings", "examples", "manuals"))
    parser.add_argument("names", nargs="+", help="packages, or folders of manual pages")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--texts", type=int, help="a sample of so many texts, of which some are too short to use"
    )
    return parser


if __name__ == "__main__":
    main()
