"""The user's own queries and judgements, on which no child may get worse.

::

    queries.tsv      query id <tab> text
    queries.jsonl    or {"_id", "text"} a line, as in BEIR
    qrels.txt        query id, iteration, document id, grade: TREC's qrels, by white space

Source of the format: https://trec.nist.gov/data/qrels_eng/. A document is relevant from grade 1 on;
the documents are those of the corpus.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import ir_measures
import orjson

from schemas.errors import InputError

QRELS = "qrels.txt"
QUERIES = ("queries.tsv", "queries.jsonl")

_LAYOUT = f"{QRELS} (TREC's qrels) and {' or '.join(QUERIES)}"

RegressionSet = Mapping[str, Mapping[str, int]]
"""By text of a query the grades of documents, by id."""


def load(folder: Path) -> RegressionSet:
    """Read a regression set. Queries of one text are one query; of two grades the higher counts.

    Raises:
        InputError: a file is missing or unreadable, a line is broken, a query is judged that has no
            text, or none has a relevant document; the message names file and line.
    """
    if not folder.is_dir():
        raise InputError(
            f"The regression set {folder} (RETRAIL_GATE_REGRESSION) is no folder. It is a folder "
            f"with {_LAYOUT}."
        )
    found = [folder / name for name in QUERIES if (folder / name).exists()]
    if len(found) != 1:
        what = "both" if found else "neither"
        raise InputError(f"{folder} holds {what} {' nor '.join(QUERIES)}. One of them is needed.")
    return _judged(folder / QRELS, _queries(found[0]), found[0].name)


def _queries(path: Path) -> dict[str, str]:
    parse = _json if path.suffix == ".jsonl" else _tabbed
    found: dict[str, str] = {}
    for place, line in _lines(path):
        query_id, text = _checked(parse, place, line)
        if query_id in found:
            raise InputError(f"{place}: query {query_id!r} was there before.")
        found[query_id] = text
    return found


def _judged(path: Path, queries: Mapping[str, str], source: str) -> RegressionSet:
    judged: dict[str, dict[str, int]] = {}
    for place, line in _lines(path):
        try:
            [found] = ir_measures.read_trec_qrels(f"{line}\n")  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise InputError(
                f"{place}: expected query id, iteration, document id and grade, a whole number, "
                f"separated by white space, not {line!r}."
            ) from error
        if found.query_id not in queries:
            raise InputError(f"{place}: query {found.query_id!r} is not in {source}.")
        grades = judged.setdefault(queries[found.query_id], {})
        # Some collections mark spam by a grade below 0.
        grades[found.doc_id] = max(found.relevance, grades.get(found.doc_id, 0))
    useful = {query: grades for query, grades in judged.items() if any(grades.values())}
    if not useful:
        raise InputError(f"{path}: no query has a document of grade 1 or above.")
    return useful


def _tabbed(line: str) -> tuple[str, str]:
    query_id, tab, text = line.partition("\t")
    if not tab:
        raise ValueError("expected query id <tab> text")
    return query_id.strip(), text.strip()


def _json(line: str) -> tuple[str, str]:
    row = orjson.loads(line)
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise ValueError('expected {"_id": …, "text": …}')
    return str(row.get("_id", "")).strip(), row["text"].strip()


def _checked(parse: Callable[[str], tuple[str, str]], place: str, line: str) -> tuple[str, str]:
    try:
        query_id, text = parse(line)
    except ValueError as error:
        raise InputError(f"{place}: {error}.") from error
    if not query_id or not text:
        raise InputError(f"{place}: the {'text' if query_id else 'id'} of the query is empty.")
    return query_id, text


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not empty, each with file and number for messages."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is missing. A regression set is {_LAYOUT}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    for number, line in enumerate(content.splitlines(), start=1):
        place = f"{path}, line {number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{place}: it is not UTF-8.") from error
        if text.strip():
            yield place, text
