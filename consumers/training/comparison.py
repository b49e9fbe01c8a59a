"""A run's comparison: the models, queries and vectors that the gate's first stage works on."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice

import numpy as np

from consumers.training import gate
from consumers.training.gate import Questions
from consumers.training.live_index import LiveIndex
from consumers.training.metrics import comparing
from consumers.training.mirrors import MOST_JUDGEMENTS, Mirrors
from consumers.vectors import VectorStore, encode
from schemas.documents import Document, content_hash
from schemas.pairs import LabelledPair
from schemas.releases import GateDecision, Model
from schemas.runs import Range, RunManifest
from schemas.settings import Settings
from trainer.data import lineage
from trainer.data.examples import file_digest
from trainer.data.lineage import History
from trainer.model.encoder import Encoder, Progress, Vectors
from trainer.registry.registry import GATE_FILE, Registry


def questions(
    settings: Settings,
    mirrors: Mirrors,
    history: History,
    parent: int,
    ranges: tuple[Range, ...],
) -> Questions:
    """The queries of a run's comparison.

    Args:
        parent: version of the parent.
        ranges: of the run's pairs.
    """
    pairs, earlier = mirrors.pairs, lineage.trained(history, parent)
    new = list(pairs.held_out(ranges))
    before = [
        *pairs.asking(_queries(new), earlier, held_out=True),
        *islice(pairs.in_turn(earlier, held_out=True), MOST_JUDGEMENTS),
    ]
    with mirrors.outcomes.snapshot() as reported:
        new, before = (
            [pair.model_copy(update={"outcome": reported.of(pair)}) for pair in some]
            for some in (new, before)
        )
    return gate.choose(
        new,
        before,
        pairs.asking(_queries([*before, *new]), [*earlier, *ranges]),
        mirrors.documents,
        settings,
    )


def _queries(pairs: Iterable[LabelledPair]) -> Iterator[str]:
    for pair in pairs:
        yield from (pair.query, *pair.earlier_queries)


def compared(
    settings: Settings,
    mirrors: Mirrors,
    history: History,
    manifest: RunManifest,
    child: Model,
    check: Callable[[], None],
) -> GateDecision:
    """The decision on a run's child; writes the file of results and pool beside it.

    Vectors stay in the data directory, where an index worker of this machine finds them. Those of
    the parent come from there, or from the live collection.

    Args:
        check: called between batches; its exceptions end the comparison.
    """
    registry, by_version = Registry.of(settings), history.releases.by_version
    version = history.releases.ancestor(manifest.parent)
    asked = questions(settings, mirrors, history, manifest.parent, manifest.ranges)
    parent, ancestor = by_version[manifest.parent].model, by_version[version].model
    digests: dict[gate.Name, str] = {
        "parent": parent.digest,
        "child": child.digest,
        "ancestor": ancestor.digest,
    }
    index = None if settings.gate == "trainer" else LiveIndex(settings, parent.digest)
    alone = version == manifest.parent or gate.certain_hold(asked, settings)
    with closing(VectorStore.of(settings)) as store:
        decision, results = gate.compare(
            registry.load(parent),
            registry.load(child),
            asked,
            mirrors.documents,
            settings=settings,
            progress=comparing(check),
            ancestor=None if alone else (version, registry.load(ancestor)),
            vectors=_stored(store, index, digests),
            hits=index.hits if index else None,
        )
    if not results:
        return decision
    registry.write_beside(child, GATE_FILE, results.decode())
    changes = {"results": file_digest(results)}
    if index is None:
        size = f"{decision.documents:,} documents"
        changes["reason"] = f"{decision.reason}; the trainer decided alone, on {size}"
    return decision.model_copy(update=changes)


def _stored(
    store: VectorStore, index: LiveIndex | None, digests: Mapping[gate.Name, str]
) -> gate.VectorsOf:
    """Vectors from the store, the parent's also from the live collection; others are encoded."""

    def vectors(
        name: gate.Name, encoder: Encoder, documents: Sequence[Document], progress: Progress
    ) -> Vectors:
        if name == "parent" and index is not None:
            _copy(index, store, encoder, digests[name], documents)
        texts = [one.embedded_text() for one in documents]
        found, _ = encode(store, encoder, digests[name], texts, progress)
        return np.stack([found[content_hash(text)] for text in texts])

    return vectors


def _copy(
    index: LiveIndex,
    store: VectorStore,
    encoder: Encoder,
    digest: str,
    documents: Sequence[Document],
) -> None:
    """Copy the parent's vectors that only the live collection has into the store."""
    hashes = {content_hash(one.embedded_text()): one for one in documents}
    stored = store.get(digest, encoder.dimension, hashes)
    missing = {found: one for found, one in hashes.items() if found not in stored}
    if missing:
        rows = index.vectors([one.doc_id for one in missing.values()])
        known = {found: rows.get(one.fingerprint()) for found, one in missing.items()}
        store.put(digest, {found: row for found, row in known.items() if row is not None})
