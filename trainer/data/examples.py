"""Training examples: pairs with their texts and weights, and the training file that freezes them.

The training file is JSON lines in one fixed order::

    {"documents":2,"examples":1,"format":"retrail-training/1"}
    {"doc_id":"a","text":"…"}
    {"doc_id":"b","text":"…"}
    {"negatives":["b"],"pair_id":"…","positive":"a","query":"…","weight":1.25}

Documents are sorted by id, examples by pair id, and keys by name. Equal examples give equal bytes,
so the file's SHA-256 identifies the training data.

Where documents have tenants, an example also has its ``tenant``, and in ``private`` the ids of its
documents that only this tenant may see. An example of an earlier query has in ``found_by`` the id
of the pair that found its positive (:mod:`trainer.data.earlier`).
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson

from schemas.base import canonical
from schemas.documents import may_see
from schemas.errors import InputError
from schemas.pairs import LabelledPair
from schemas.runs import Intensity
from trainer.data.draws import is_held_out
from trainer.data.weighting import Variant, weight

TextOf = Callable[[str], str | None]
"""Returns the text of a document as the encoder reads it; ``None`` if unknown or deleted."""

OTHER_TENANT = "other tenant"
"""Reason for what a pair's tenant may not see."""


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A query with a relevant document (the positive) and less relevant ones (negatives).

    Attributes:
        negatives: (id, text), rejected ones first.
        weight: see :mod:`trainer.data.weighting`.
        tenant: of the pair; empty if no document of the run has one.
        private: ids of its documents that only the tenant may see.
        found_by: of an earlier query, the id of the pair that found the positive; else empty.
    """

    pair_id: str
    query: str
    positive_id: str
    positive_text: str
    negatives: tuple[tuple[str, str], ...]
    weight: float
    tenant: str = ""
    private: frozenset[str] = frozenset()
    found_by: str = ""

    @property
    def documents(self) -> tuple[tuple[str, str], ...]:
        """(id, text) of the positive, then of the negatives."""
        return ((self.positive_id, self.positive_text), *self.negatives)


@dataclass(frozen=True, slots=True)
class Examples:
    """Examples by pair id, with counts of what was left out.

    Attributes:
        examples: sorted by ``pair_id``.
        left_out: number of pairs by reason: ``irrelevant``, ``held out``, ``repeated`` (its id
            occurred before), ``no text`` (the positive is unknown or deleted), ``other tenant``.
    """

    examples: tuple[TrainingExample, ...]
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Pairs, sorted by ``pair_id``, and the number of those that were left out, by reason."""

    pairs: tuple[LabelledPair, ...]
    left_out: Mapping[str, int]


def trainable(pairs: Iterable[LabelledPair], variant: Variant = "reweight") -> Chosen:
    """Select the pairs that train: relevant, not held out, each id once.

    Under the variant ``naive`` irrelevant pairs train too: every browsed document is a positive.
    """
    first: dict[str, LabelledPair] = {}
    left_out: Counter[str] = Counter()
    for pair in pairs:
        if pair.verdict != "relevant" and variant != "naive":
            left_out["irrelevant"] += 1
        elif is_held_out(pair.query):
            left_out["held out"] += 1
        elif pair.pair_id in first:
            left_out["repeated"] += 1
        else:
            first[pair.pair_id] = pair
    return Chosen(tuple(first[key] for key in sorted(first)), dict(left_out))


def build(
    chosen: Chosen,
    text_of: TextOf,
    intensity: Intensity,
    variant: Variant = "reweight",
    owners: Mapping[str, str] = MappingProxyType({}),
) -> Examples:
    """Look up the texts and compute the weights.

    Negatives are left out that have no text, that the pair's tenant may not see, or whose text is
    that of the positive or of an earlier negative.

    Args:
        owners: of the documents that are not everyone's.
    """
    examples = []
    left_out = Counter(chosen.left_out)
    for pair in chosen.pairs:
        positive = text_of(pair.positive)
        if positive is None:
            left_out["no text"] += 1
            continue
        if not may_see(pair.tenant, owners.get(pair.positive, "")):
            left_out[OTHER_TENANT] += 1
            continue
        seen = {positive}
        negatives: list[tuple[str, str]] = []
        for doc_id in pair.negatives:
            text = text_of(doc_id)
            if text is None or text in seen or not may_see(pair.tenant, owners.get(doc_id, "")):
                continue
            seen.add(text)
            negatives.append((doc_id, text))
        examples.append(
            TrainingExample(
                pair_id=pair.pair_id,
                query=pair.query,
                positive_id=pair.positive,
                positive_text=positive,
                negatives=tuple(negatives),
                weight=weight(pair, intensity, variant),
                tenant=pair.tenant if owners else "",
                private=frozenset(owners.keys() & {pair.positive, *dict(negatives)}),
            )
        )
    return Examples(tuple(examples), dict(left_out))


FORMAT = "retrail-training/1"


def dump_file(examples: Sequence[TrainingExample]) -> bytes:
    """The training file of examples in any order.

    Raises:
        ValueError: two examples have different texts for one document.
    """
    texts: dict[str, str] = {}
    for example in examples:
        for doc_id, text in example.documents:
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
            "weight": example.weight,
            **({"tenant": example.tenant} if example.tenant else {}),
            **({"private": sorted(example.private)} if example.private else {}),
            **({"found_by": example.found_by} if example.found_by else {}),
        }
        for example in sorted(examples, key=lambda example: example.pair_id)
    )
    lines = [canonical(line) for line in (header, *documents, *rows)]
    return b"".join(line + b"\n" for line in lines)


def file_digest(content: bytes) -> str:
    """SHA-256 of a training file, or of the gate's results: 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def parse_file(content: bytes, name: str) -> tuple[TrainingExample, ...]:
    """Parse a training file.

    Args:
        content: of the file.
        name: of the file, for error messages.

    Raises:
        InputError: the file is malformed or truncated; the message names the line.
    """
    lines = content.splitlines()
    number = 1
    try:
        header: dict[str, Any] = orjson.loads(lines[0])
        if header["format"] != FORMAT:
            raise ValueError(f"the format is {header['format']}, not {FORMAT}")
        last_document = 1 + int(header["documents"])
        if len(lines) != last_document + int(header["examples"]):
            raise ValueError("the number of lines differs from the header")
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
            f"{name}, line {number}: not a valid training file: {error}. Restore it from a backup "
            "of the registry."
        ) from error
    return tuple(examples)


def _example(row: dict[str, Any], texts: dict[str, str]) -> TrainingExample:
    return TrainingExample(
        pair_id=row["pair_id"],
        query=row["query"],
        positive_id=row["positive"],
        positive_text=texts[row["positive"]],
        negatives=tuple((doc_id, texts[doc_id]) for doc_id in row["negatives"]),
        weight=float(row["weight"]),
        tenant=row.get("tenant", ""),
        private=frozenset(row.get("private", ())),
        found_by=row.get("found_by", ""),
    )
