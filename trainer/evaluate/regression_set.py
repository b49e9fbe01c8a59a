"""The regression set: the user's own queries and judgements, on which no child may get worse.

::

    queries.tsv      query id <tab> text
    queries.jsonl    or {"_id", "text"} a line, as in BEIR
    qrels.txt        query id, iteration, document id, grade: TREC's qrels, by white space

A document is relevant from grade 1 on; document ids are those of the corpus. The files may be
compressed (:mod:`retrail_runtime.corpus_files`).
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from retrail_runtime import corpus_files
from retrail_runtime.corpus_files import Found, T
from schemas.errors import InputError, InvalidRecordError

QRELS = "qrels.txt"
QUERIES = ("queries.tsv", "queries.jsonl")

_LAYOUT = f"{QRELS} (TREC's qrels) and {' or '.join(QUERIES)}"

RegressionSet = Mapping[str, Mapping[str, int]]
"""Grades by document id, by text of the query."""


def load(folder: Path) -> RegressionSet:
    """Read a regression set; queries of one text are merged, with the highest of several grades.

    Raises:
        InputError: a file is missing or unreadable, a line is invalid, a judged query has no text,
            or no query has a relevant document; the message names file and line.
    """
    if not folder.is_dir():
        raise InputError(
            f"The regression set {folder} (RETRAIL_GATE_REGRESSION) is not a folder. A regression "
            f"set is a folder with {_LAYOUT}."
        )
    found = [path for name in QUERIES if (path := corpus_files.find(folder, name))]
    if len(found) != 1:
        names = " and ".join(QUERIES)
        problem = f"both {names} exist" if found else f"{names} are missing"
        raise InputError(f"{folder}: {problem}. Exactly one of them is needed.")
    qrels = corpus_files.find(folder, QRELS)
    if qrels is None:
        raise InputError(f"{folder / QRELS} is missing. A regression set has {_LAYOUT}.")
    return _judged(qrels, _queries(found[0]), found[0].name)


def _queries(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for place, query in _valid(corpus_files.read_queries(path)):
        if query.query_id in found:
            raise InputError(f"{place}: query {query.query_id!r} occurs twice.")
        found[query.query_id] = query.text
    return found


def _judged(path: Path, queries: Mapping[str, str], source: str) -> RegressionSet:
    judged: dict[str, dict[str, int]] = {}
    for place, found in _valid(corpus_files.read_judgements(path)):
        if found.query_id not in queries:
            raise InputError(f"{place}: query {found.query_id!r} is not in {source}.")
        grades = judged.setdefault(queries[found.query_id], {})
        # Some collections mark spam with a negative grade.
        grades[found.doc_id] = max(found.grade, grades.get(found.doc_id, 0))
    useful = {query: grades for query, grades in judged.items() if any(grades.values())}
    if not useful:
        raise InputError(f"{path}: no query has a document of grade 1 or above.")
    return useful


def _valid(found: Iterable[Found[T]]) -> Iterator[tuple[str, T]]:
    for place, value in found:
        if isinstance(value, InvalidRecordError):
            raise InputError(f"{place}: {value}.")
        yield place, value
