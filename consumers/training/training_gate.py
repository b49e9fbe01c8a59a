"""Parent against child, on the held-out queries that agents have asked so far."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from functools import partial

import structlog

from consumers.training.selection import TextSource
from schemas.base import canonical
from schemas.pairs import LabelledPair
from schemas.runs import Caps
from schemas.settings import Settings
from trainer import metrics as trainer_metrics
from trainer.data import training_caps
from trainer.data.heldout import folded
from trainer.evaluate import evaluation, gate, regression_set
from trainer.evaluate.gate import GateDecision, Rule
from trainer.model.encoder import Encoder

log = structlog.get_logger(__name__)

UNCAPPED = Caps(agent=1.0, tenant=1.0, trajectory=1.0, query=1.0, document=1.0, run=1)

_LEAST = 1e-6
"""A share is above 0; of any number of queries this is one."""

StageProgress = Callable[[str, int, int], None]
"""Called with what is done, and how many documents of how many."""


def compare(
    parent: Encoder,
    child: Encoder,
    held_out: Iterable[LabelledPair],
    trained: Iterable[LabelledPair],
    texts: TextSource,
    *,
    settings: Settings,
    progress: StageProgress,
) -> GateDecision:
    """Evaluate both over the same pool, and decide.

    Args:
        held_out: relevant pairs of held-out queries; their positives are what is relevant.
        trained: pairs that the child or an ancestor may have trained on; their queries are not
            asked here, whoever asked them too.
        texts: the corpus.
        progress: called while documents are encoded; the evaluation ends with what it raises.

    Raises:
        InputError: the regression set (RETRAIL_GATE_REGRESSION) cannot be read.
    """
    own = regression_set.load(settings.gate_regression) if settings.gate_regression else {}
    queries = relevance(
        held_out,
        {folded(pair.query) for pair in trained},
        caps_of(settings),
        settings.train_seed,
    )
    documents = {
        doc_id: document.embedded_text() for doc_id, document in texts.get(texts.all_ids()).items()
    }
    asked = {query: {*queries.get(query, ()), *own.get(query, ())} for query in {**queries, **own}}
    pool = evaluation.choose_pool(
        documents,
        asked,
        [parent, child],
        seed=settings.train_seed,
        progress=partial(progress, "choosing documents"),
    )
    log.info("evaluating", queries=len(queries), regression=len(own), documents=len(pool))
    ids = sorted(pool)
    found, found_own = [], []
    for name, encoder in (("parent", parent), ("child", child)):
        vectors = encoder.encode_documents(
            [pool[doc_id] for doc_id in ids], progress=partial(progress, f"evaluating the {name}")
        )
        found.append(evaluation.evaluate_vectors(encoder, queries, ids, vectors))
        found_own.append(evaluation.evaluate_vectors(encoder, own, ids, vectors))
    rule = Rule(settings.gate_margin, settings.gate_min_queries, settings.train_seed)
    decision = gate.decide(found[0], found[1], rule, relevant=queries)
    if own:
        relevant = {query: [d for d, grade in some.items() if grade] for query, some in own.items()}
        decision = gate.without_regression(
            decision, found_own[0], found_own[1], rule, relevant=relevant
        )
        if len(found_own[0]) < len(own):
            log.warning(
                "queries of the regression set have no relevant document in the corpus",
                left_out=len(own) - len(found_own[0]),
                queries=len(own),
            )
    if settings.gate == "manual":
        decision = gate.awaiting_approval(decision)
    trainer_metrics.GATE_DECISIONS.labels(decision.decision).inc()
    for model, means in (("parent", decision.parent), ("child", decision.child)):
        if means is not None:
            trainer_metrics.GATE_NDCG.labels(model).set(means.ndcg_at_10)
    return decision


def relevance(
    pairs: Iterable[LabelledPair],
    trained: Collection[str] = (),
    caps: Caps = UNCAPPED,
    seed: int = 0,
) -> dict[str, set[str]]:
    """Relevant documents by query; spellings of one query count as one, asked as the first of them.

    The query of a pair is one that the parent, or an ancestor, answered well: the agent found its
    positive among the hits. On such queries alone a child could only fall behind. So the queries
    before it, which the agent asked for the same thing in vain, count as well.

    The order of the pairs does not matter.

    Args:
        pairs: relevant ones.
        trained: folded queries to leave out.
        caps: on what one document, trajectory, … says, see :func:`caps_of`.
        seed: decides what stays.
    """
    every = _judgements(pairs, trained)
    capped = training_caps.apply(every, caps, seed=seed, parent=0)
    if capped.left_out:
        log.info("capped in the gate", judgements=len(every), left_out=dict(capped.left_out))
    documents: dict[str, set[str]] = defaultdict(set)
    spelling: dict[str, str] = {}
    for judgement in capped.pairs:
        name = folded(judgement.query)
        documents[name].add(judgement.positive)
        spelling[name] = min(judgement.query, spelling.get(name, judgement.query))
    return {spelling[name]: relevant for name, relevant in sorted(documents.items())}


def caps_of(settings: Settings) -> Caps:
    """Caps against poisoning of the gate, whose queries the same strangers ask.

    A child that has learned to put one document first gains on every query for which somebody said
    that it serves. A query moves the mean by its share at most. So of all that is relevant, one
    document and one trajectory may each have as large a share as the margin (or three times an
    equal share, where there are few of them): neither alone can hide a fall that the gate is there
    to see. Agents and tenants are capped as in training.
    """
    share = min(1.0, max(settings.gate_margin, _LEAST))
    return Caps(
        agent=settings.train_cap_agent,
        tenant=settings.train_cap_tenant,
        trajectory=share,
        query=1.0,
        document=share,
        run=settings.gate_min_queries,
    )


def _judgements(pairs: Iterable[LabelledPair], trained: Collection[str]) -> list[LabelledPair]:
    """Each query with each document that served it, once, as a pair of its own.

    It belongs to the trajectory that said so first by pair id.
    """
    found: dict[tuple[str, str], LabelledPair] = {}
    spelling: dict[tuple[str, str], str] = {}
    for pair in sorted(pairs, key=lambda pair: pair.pair_id):
        for query in (pair.query, *pair.earlier_queries):
            key = folded(query), pair.positive
            if key[0] not in trained:
                found.setdefault(key, pair)
                spelling[key] = min(query, spelling.get(key, query))
    return [
        pair.model_copy(update={"pair_id": _id_of(key), "query": spelling[key]})
        for key, pair in found.items()
    ]


def _id_of(key: tuple[str, str]) -> str:
    """Names a judgement, whoever made it."""
    return hashlib.sha256(canonical(list(key))).hexdigest()[:32]
