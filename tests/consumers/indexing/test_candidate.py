"""The second stage of the gate: integrity and quality, from hits and vectors."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from consumers.indexing import candidate
from consumers.indexing.candidate import FOUND, TOLERANCE, Hits, Side, broken, compare
from consumers.indexing.collection import Row
from consumers.indexing.embedder import Embedder
from consumers.tasks import StoppedError
from retrail_runtime.milvus import Build
from schemas.documents import Document, content_hash
from schemas.releases import CandidateDecision
from tests.trained import a_release
from trainer.evaluate.frozen import Frozen

DIMENSION = 8
IDS = [f"d{number:02}" for number in range(40)]


def directions(seed: int, count: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def exact(asked: NDArray[np.float32], ids: Sequence[str], vectors: NDArray[np.float32]) -> Any:
    """The ten best hits of each query."""
    found = []
    for row in asked @ vectors.T:
        order = np.argsort(-row, kind="stable")[:10]
        found.append([(ids[at], float(row[at])) for at in order])
    return found


@given(st.integers(0, 1000), st.sets(st.sampled_from(IDS)))
def test_an_exact_search_is_whole_on_any_part_of_the_corpus(seed: int, pool: set[str]) -> None:
    vectors, asked = directions(seed, len(IDS)), directions(seed + 1, 5)
    kept = [at for at, name in enumerate(IDS) if name in pool]

    found = compare(asked, [IDS[at] for at in kept], vectors[kept], exact(asked, IDS, vectors))

    assert (found.queries, found.found, broken(found)) == (5, 1.0, "")
    assert found.largest_error < 1e-5


def test_rows_with_the_vectors_of_others_are_refused() -> None:
    vectors, asked = directions(1, len(IDS)), directions(2, 5)
    swapped = np.roll(vectors, 1, axis=0)

    found = compare(asked, IDS, vectors, exact(asked, IDS, swapped))

    assert found.largest_error > TOLERANCE
    assert "vectors of other documents" in broken(found)


def test_a_search_that_misses_documents_is_refused() -> None:
    vectors, asked = directions(1, len(IDS)), directions(2, 50)
    seen = vectors[::2]

    found = compare(asked, IDS, vectors, exact(asked, IDS[::2], seen))

    assert found.largest_error < TOLERANCE
    assert found.found < FOUND
    assert "too coarse" in broken(found)


def test_a_small_corpus_must_be_found_whole() -> None:
    vectors, asked = directions(1, 6), directions(2, 3)
    assert compare(asked, IDS[:6], vectors, exact(asked, IDS[:6], vectors)).found == 1.0
    missing = compare(asked, IDS[:6], vectors, exact(asked, IDS[:3], vectors[:3]))
    assert missing.found == 0.5


class Words:
    """An embedder whose vectors count words, blind to some."""

    def __init__(self, *blind_to: str) -> None:
        self._blind = set(blind_to)
        self._words = [f"w{number}" for number in range(len(IDS))]

    def queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        counts = [
            [text.split().count(word) * (word not in self._blind) for word in self._words]
            for text in texts
        ]
        return np.array(counts, dtype=np.float32).reshape(len(texts), len(self._words))

    def rows(self, documents: Sequence[Document], progress: Any = None) -> list[Row]:
        if progress is not None:
            progress(len(documents), len(documents))
        vectors = self.queries([document.text for document in documents])
        return [
            Row(document.doc_id, "", document.text, content_hash(document.text), vector)
            for document, vector in zip(documents, vectors, strict=True)
        ]


DOCUMENTS = [Document(doc_id=name, text=f"w{at}") for at, name in enumerate(IDS)]
FROZEN = Frozen(
    held_out={f"w{at}": {IDS[at]: 1} for at in range(30)},
    regression={},
    pool=IDS,
    since_parent=False,
)


def decided(child: Words, frozen: Frozen = FROZEN, **changes: Any) -> CandidateDecision:
    sides = {"p": Words(), "c": child}

    def search(build: Build, texts: Sequence[str], vectors: Any, tenants: Any) -> Sequence[Hits]:
        stored = np.stack([row.vector for row in sides[build.collection].rows(DOCUMENTS)])
        found: Sequence[Hits] = exact(vectors, IDS, stored)
        return found

    values: dict[str, Any] = {
        "search": search,
        "pool": DOCUMENTS,
        "changed": set,
        "check": lambda: None,
        "manual": False,
    } | changes
    manual = values.pop("manual")
    parent, other = (
        Side(Build(name, 1, name, "m", name), cast(Embedder, one)) for name, one in sides.items()
    )
    return candidate.decide(
        a_release(2, 1, "ship", candidate=True),
        frozen,
        parent,
        other,
        own=candidate.integrity(frozen, other, **values),
        search=values["search"],
        documents=len(DOCUMENTS),
        manual=manual,
        seed=0,
    )


def test_an_equal_child_ships_with_the_figures_of_the_whole_corpus() -> None:
    found = decided(Words())
    assert (found.version, found.decision, found.documents) == (2, "ship", len(DOCUMENTS))
    assert found.held_out is not None
    assert (found.held_out.queries, found.held_out.difference) == (30, 0.0)
    assert found.integrity is not None
    assert found.integrity.found == 1.0
    assert found.reason.startswith("on 40 documents mean nDCG@10 changes by +0.0000")


def test_a_child_that_is_worse_on_the_whole_corpus_is_rejected() -> None:
    assert decided(Words(*(f"w{at}" for at in range(20)))).decision == "reject"


def test_the_regression_set_makes_the_decision_stricter() -> None:
    own = Frozen(FROZEN.held_out, {f"w{at}": {IDS[at]: 1} for at in range(30, 40)}, IDS, True)
    found = decided(Words(*(f"w{at}" for at in range(30, 40))), own)
    assert found.decision == "reject"
    assert found.held_out is not None
    assert found.held_out.difference == 0.0
    assert "first asked since the parent" in found.reason


def test_manual_approval_makes_it_wait() -> None:
    found = decided(Words(), manual=True)
    assert found.decision == "pending"
    assert decided(Words(*(f"w{at}" for at in range(20))), manual=True).decision == "reject"


def test_documents_that_change_meanwhile_do_not_count() -> None:
    old = [
        Document(doc_id=one.doc_id, text="w39") if one.doc_id == "d03" else one for one in DOCUMENTS
    ]
    assert decided(Words(), pool=old).decision == "failed"
    assert decided(Words(), pool=old, changed=lambda: {"d03"}).decision == "ship"


def test_a_worker_that_stops_does_not_encode_the_rest_of_the_pool() -> None:
    def stopped() -> None:
        raise StoppedError("it stops")

    with pytest.raises(StoppedError):
        decided(Words(), check=stopped)


@pytest.mark.parametrize("search", ["dense", "hybrid"])
def test_integrity_is_that_of_the_dense_search(search: str) -> None:
    asked: list[str] = []

    def note(build: Build, texts: Sequence[str], vectors: Any, tenants: Any) -> Sequence[Hits]:
        asked.append(build.search)
        stored = np.stack([row.vector for row in Words().rows(DOCUMENTS)])
        found: Sequence[Hits] = exact(vectors, IDS, stored)
        return found

    side = Side(Build("c", 2, "c", "m", "d", search=cast(Any, search)), cast(Embedder, Words()))
    candidate.integrity(FROZEN, side, search=note, pool=DOCUMENTS, changed=set, check=list)
    assert set(asked) == {"dense"}


def test_each_query_is_asked_with_its_tenant() -> None:
    own = {f"w{at}": {IDS[at]: 1} for at in (0, 30, 31)}
    tenants = {f"w{at}": "one" if at < 15 else "" for at in range(30)}
    asked: set[tuple[str, str, str | None]] = set()

    def search(build: Build, texts: Sequence[str], vectors: Any, limits: Any) -> Sequence[Hits]:
        asked.update((build.collection, *one) for one in zip(texts, limits, strict=True))
        stored = np.stack([row.vector for row in Words().rows(DOCUMENTS)])
        found: Sequence[Hits] = exact(vectors, IDS, stored)
        return found

    decided(Words(), replace(FROZEN, regression=own, tenants=tenants), search=search)

    expected = {*tenants.items(), *((query, None) for query in own)}
    assert {(query, tenant) for name, query, tenant in asked if name == "p"} == expected
    integrity = {(query, None) for query in {*tenants, *own}}
    assert {(query, tenant) for name, query, tenant in asked if name == "c"} == expected | integrity
