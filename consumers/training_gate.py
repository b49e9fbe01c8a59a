"""Parent against child, on the held-out queries that agents have asked so far."""

from collections import defaultdict
from collections.abc import Collection, Iterable

import structlog

from consumers.text_store import TextStore
from schemas.pairs import LabelledPair
from schemas.settings import Settings
from trainer import evaluation, gate
from trainer import metrics as trainer_metrics
from trainer.encoder import Encoder, Progress
from trainer.gate import GateDecision, Rule
from trainer.heldout import folded

log = structlog.get_logger(__name__)


def compare(
    parent: Encoder,
    child: Encoder,
    held_out: Iterable[LabelledPair],
    trained: Iterable[LabelledPair],
    texts: TextStore,
    *,
    settings: Settings,
    progress: Progress,
) -> GateDecision:
    """Evaluate both over the same pool, and decide.

    Args:
        held_out: relevant pairs of held-out queries; their positives are what is relevant.
        trained: pairs that the child or an ancestor may have trained on; their queries are not
            asked here, whoever asked them too.
        texts: the corpus.
        progress: called while documents are encoded; the evaluation ends with what it raises.
    """
    queries = relevance(held_out, {folded(pair.query) for pair in trained})
    documents = {
        doc_id: document.embedded_text() for doc_id, document in texts.get(texts.all_ids()).items()
    }
    pool = evaluation.choose_pool(documents, queries, [parent, child], seed=settings.train_seed)
    log.info("evaluating", queries=len(queries), documents=len(pool))
    found = [
        evaluation.evaluate(encoder, queries, pool, progress=progress)
        for encoder in (parent, child)
    ]
    rule = Rule(settings.gate_margin, settings.gate_min_queries, settings.train_seed)
    decision = gate.decide(found[0], found[1], rule, relevant=queries)
    if settings.gate == "manual":
        decision = gate.awaiting_approval(decision)
    trainer_metrics.GATE_DECISIONS.labels(decision.decision).inc()
    for model, means in (("parent", decision.parent), ("child", decision.child)):
        if means is not None:
            trainer_metrics.GATE_NDCG.labels(model).set(means.ndcg_at_10)
    return decision


def relevance(pairs: Iterable[LabelledPair], trained: Collection[str] = ()) -> dict[str, set[str]]:
    """Relevant documents by query; spellings of one query count as one, asked as the first of them.

    The query of a pair is one that the parent, or an ancestor, answered well: the agent found its
    positive among the hits. On such queries alone a child could only fall behind. So the queries
    before it, which the agent asked for the same thing in vain, count as well.

    The order of the pairs does not matter.

    Args:
        pairs: relevant ones.
        trained: folded queries to leave out.
    """
    documents: dict[str, set[str]] = defaultdict(set)
    spelling: dict[str, str] = {}
    for pair in pairs:
        for query in (pair.query, *pair.earlier_queries):
            name = folded(query)
            if name in trained:
                continue
            documents[name].add(pair.positive)
            spelling[name] = min(query, spelling.get(name, query))
    return {spelling[name]: relevant for name, relevant in sorted(documents.items())}
