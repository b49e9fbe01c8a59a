"""Parent against child, on the held-out queries that agents have asked so far."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

import structlog

from consumers.training.metrics import StageProgress
from schemas.documents import Document
from schemas.pairs import LabelledPair
from schemas.releases import GateDecision
from schemas.runs import Caps
from schemas.settings import Settings
from trainer import metrics
from trainer.data.draws import normalize_query
from trainer.evaluate import evaluation, gate, queries, regression_set
from trainer.evaluate.gate import Rule
from trainer.model.encoder import Encoder

log = structlog.get_logger(__name__)


class Corpus(Protocol):
    """Where the gate reads documents, for instance a local copy of ``documents``."""

    def all_ids(self) -> Sequence[str]: ...
    def get(self, doc_ids: Iterable[str]) -> Mapping[str, Document]: ...


def compare(
    parent: Encoder,
    child: Encoder,
    held_out: Iterable[LabelledPair],
    trained: Iterable[LabelledPair],
    corpus: Corpus,
    *,
    settings: Settings,
    progress: StageProgress,
    caps: Caps | None = None,
) -> GateDecision:
    """Evaluate both over the same pool, and decide.

    Args:
        held_out: relevant pairs of held-out queries; their positives are what is relevant.
        trained: pairs that the child or an ancestor may have trained on; their queries are not
            asked here, whoever asked them too.
        progress: called while documents are encoded; the evaluation ends with what it raises.
        caps: of the held-out queries; by default :func:`trainer.evaluate.queries.caps_of`.

    Raises:
        InputError: the regression set (RETRAIL_GATE_REGRESSION) cannot be read.
    """
    seed = settings.train_seed
    caps = caps or queries.caps_of(settings)
    own = regression_set.load(settings.gate_regression) if settings.gate_regression else {}
    asked = queries.relevance(held_out, {normalize_query(p.query) for p in trained}, caps, seed)
    documents = corpus.get(corpus.all_ids())
    pool = evaluation.choose_pool(
        {doc_id: document.embedded_text() for doc_id, document in documents.items()},
        {query: {*asked.get(query, ()), *own.get(query, ())} for query in {**asked, **own}},
        [parent, child],
        seed=seed,
        progress=partial(progress, "choosing documents"),
    )
    log.info("evaluating", queries=len(asked), regression=len(own), documents=len(pool))
    ids = sorted(pool)
    found, found_own = [], []
    for name, encoder in (("parent", parent), ("child", child)):
        vectors = encoder.encode_documents(
            [pool[doc_id] for doc_id in ids], progress=partial(progress, f"evaluating the {name}")
        )
        found.append(evaluation.evaluate_vectors(encoder, asked, ids, vectors))
        found_own.append(evaluation.evaluate_vectors(encoder, own, ids, vectors))
    relevant = {query: [d for d, grade in some.items() if grade] for query, some in own.items()}
    decision = gate.decide(
        gate.compare(*found, relevant=asked, seed=seed),
        Rule(settings.gate_margin, settings.gate_min_queries),
        regression_set=bool(own),
        regression=gate.compare(*found_own, relevant=relevant, seed=seed),
        manual=settings.gate == "manual",
        caps=caps,
    )
    if len(found_own[0]) < len(own):
        log.warning(
            "queries of the regression set have no relevant document in the corpus",
            left_out=len(own) - len(found_own[0]),
            queries=len(own),
        )
    metrics.GATE_DECISIONS.labels(decision.decision).inc()
    if decision.held_out is not None:
        metrics.GATE_NDCG.labels("parent").set(decision.held_out.parent_metrics.ndcg_at_10)
        metrics.GATE_NDCG.labels("child").set(decision.held_out.child_metrics.ndcg_at_10)
    return decision
