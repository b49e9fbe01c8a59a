"""The frozen training file: everything that a run trains on, as JSON lines in one fixed order.

::

    {"documents":2,"examples":1,"format":"retrail-training/1"}
    {"doc_id":"a","text":"…"}
    {"doc_id":"b","text":"…"}
    {"negatives":["b"],"pair_id":"…","positive":"a","query":"…","rejected":1,"weight":1.25}

Documents by id, then examples by pair id, keys sorted: equal examples give equal bytes, so the
SHA-256 of the file names what was trained on.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import orjson

from schemas.base import canonical
from schemas.errors import InputError
from trainer.data.examples import TrainingExample

FORMAT = "retrail-training/1"


def dump(examples: Sequence[TrainingExample]) -> bytes:
    """The canonical bytes of examples, given in any order.

    Raises:
        ValueError: two examples give one document different texts.
    """
    texts: dict[str, str] = {}
    for example in examples:
        for doc_id, text in (
            (example.positive_id, example.positive_text),
            *example.negatives,
        ):
            if texts.setdefault(doc_id, text) != text:
                raise ValueError(f"document {doc_id} has two texts")
    header = {"format": FORMAT, "documents": len(texts), "examples": len(examples)}
    documents = ({"doc_id": doc_id, "text": texts[doc_id]} for doc_id in sorted(texts))
    rows = (
        {
            "pair_id": example.pair_id,
            "query": example.query,
            "positive": example.positive_id,
            "negatives": [doc_id for doc_id, _ in example.negatives],
            "rejected": example.rejected,
            "weight": example.weight,
        }
        for example in sorted(examples, key=lambda example: example.pair_id)
    )
    lines = [canonical(line) for line in (header, *documents, *rows)]
    return b"".join(line + b"\n" for line in lines)


def digest(content: bytes) -> str:
    """SHA-256 of the file, 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def parse(content: bytes, name: str) -> tuple[TrainingExample, ...]:
    """Read the bytes of a training file.

    Args:
        name: of the file, for messages.

    Raises:
        InputError: it is malformed or cut short; the message names the line.
    """
    lines = content.splitlines()
    number = 1
    try:
        header: dict[str, Any] = orjson.loads(lines[0])
        if header["format"] != FORMAT:
            raise ValueError(f"its format is {header['format']}, not {FORMAT}")
        last_document = 1 + int(header["documents"])
        if len(lines) != last_document + int(header["examples"]):
            raise ValueError("it is cut short or has lines too many")
        texts: dict[str, str] = {}
        examples = []
        for number, line in enumerate(lines[1:], start=2):
            row = orjson.loads(line)
            if number <= last_document:
                texts[row["doc_id"]] = row["text"]
            else:
                examples.append(_example(row, texts))
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{name}, line {number}, is not of a training file: {error}. Restore the file from a "
            "copy of the registry."
        ) from error
    return tuple(examples)


def _example(row: dict[str, Any], texts: dict[str, str]) -> TrainingExample:
    return TrainingExample(
        pair_id=row["pair_id"],
        query=row["query"],
        positive_id=row["positive"],
        positive_text=texts[row["positive"]],
        negatives=tuple((doc_id, texts[doc_id]) for doc_id in row["negatives"]),
        rejected=row["rejected"],
        weight=float(row["weight"]),
    )
