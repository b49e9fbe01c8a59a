"""The gate's first stage: parent and child on held-out queries and the regression set, over a pool.

Memory does not depend on the size of the corpus: at most :data:`QUERIES` queries and a pool of
documents are read.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from consumers.training.metrics import StageProgress
from retrail_runtime.search import Tenants
from schemas.documents import Document, may_see
from schemas.pairs import LabelledPair
from schemas.releases import GateDecision
from schemas.runs import Caps
from schemas.settings import Settings
from trainer import metrics
from trainer.data import draws
from trainer.data.draws import normalize_query
from trainer.evaluate import evaluation, frozen, gate, queries, regression_set
from trainer.evaluate.gate import Rule
from trainer.evaluate.regression_set import RegressionSet
from trainer.model.encoder import Encoder, Progress, Vectors

log = structlog.get_logger(__name__)


QUERIES = 1_000
"""Held-out queries of a comparison at most, unless RETRAIL_GATE_MIN_QUERIES is larger."""

TOP = 100
"""First hits of the parent for each query, from which the pool is filled."""

Name = Literal["parent", "child", "ancestor"]

VectorsOf = Callable[[Name, Encoder, Sequence[Document], Progress], Vectors]
"""The vectors of documents by an encoder, in their order."""

Hits = Callable[[Sequence[str], Vectors, Tenants], Sequence[Sequence[str]]]
"""Ids of the parent's first :data:`TOP` hits of each query, by its text, vector and tenant."""


class Corpus(Protocol):
    """Source of documents, such as a local mirror of ``documents``.

    ``owners`` are the tenants that have documents of their own.
    """

    def owners(self) -> Set[str]: ...
    def sample(self, count: int, seed: int) -> Sequence[str]: ...
    def get(self, doc_ids: Iterable[str]) -> Mapping[str, Document]: ...


@dataclass(frozen=True, slots=True)
class Questions:
    """The queries of a comparison.

    Attributes:
        held_out: relevant documents in the corpus, by held-out query; a sample of many queries.
        since_parent: whether all these queries were first asked after those of the parent's run.
        unknown: number of held-out queries without a relevant document in the corpus.
        wrong: number of held-out pairs that do not count because of a wrong answer.
        regression: grades of documents in the corpus, by query of the regression set; ``None``
            without a regression set.
        caps: of the held-out queries.
        tenants: by held-out query the tenant whose documents it finds, beside everyone's. Empty for
            a query of several tenants, or of one without documents. Without any document of a
            tenant no query is limited.
    """

    held_out: Mapping[str, Set[str]]
    since_parent: bool
    unknown: int
    wrong: int
    regression: RegressionSet | None
    caps: Caps
    tenants: Mapping[str, str] = field(default_factory=dict)


def choose(
    new: Iterable[LabelledPair],
    earlier: Iterable[LabelledPair],
    trained: Iterable[LabelledPair],
    corpus: Corpus,
    settings: Settings,
    caps: Caps | None = None,
) -> Questions:
    """The queries of a comparison.

    Queries first asked since the parent was trained did not influence its release. If there are at
    least RETRAIL_GATE_MIN_QUERIES of them, only they are used; otherwise all held-out queries are.

    Args:
        new: relevant pairs of held-out queries in the run's ranges, with the latest known outcomes.
        earlier: the same in the parent's ranges.
        trained: pairs of the child or an ancestor; their queries are excluded.
        corpus: of documents.
        settings: of the gate, and its seed.
        caps: of the held-out queries; by default :func:`trainer.evaluate.queries.caps_of`.

    Raises:
        InputError: the regression set (RETRAIL_GATE_REGRESSION) cannot be read.
    """
    new, earlier = list(new), list(earlier)
    caps = caps or queries.caps_of(settings)
    left_out = queries.trained_queries(trained)
    asked_before = {
        normalize_query(query) for pair in earlier for query in (pair.query, *pair.earlier_queries)
    }
    own = regression_set.load(settings.gate_regression) if settings.gate_regression else None
    fresh = queries.relevance(new, left_out | asked_before, caps, settings.train_seed)
    tenants = _tenants([*earlier, *new], corpus.owners())
    held_out = _known(fresh, corpus, tenants)
    since_parent = bool(earlier) and len(held_out) >= settings.gate_min_queries
    if earlier and not since_parent:
        fresh = queries.relevance([*earlier, *new], left_out, caps, settings.train_seed)
        held_out = _known(fresh, corpus, tenants)
    known = corpus.get({doc_id for grades in (own or {}).values() for doc_id in grades})
    relevant = own and {
        query: some
        for query, grades in own.items()
        if any((some := {d: g for d, g in grades.items() if d in known}).values())
    }
    if own and relevant is not None and len(relevant) < len(own):
        log.warning(
            "regression set has queries without a relevant document in the corpus",
            left_out=len(own) - len(relevant),
            queries=len(own),
        )
    unknown = len(fresh) - len(held_out)
    wrong = len({p.pair_id for p in (*earlier, *new) if p.outcome == "incorrect"})
    most = max(QUERIES, settings.gate_min_queries)
    asked = draws.draw(held_out, most, seed=settings.train_seed, parent=0)
    chosen = {query: held_out[query] for query in asked}
    limited = {query: tenants[normalize_query(query)] for query in chosen if tenants}
    return Questions(chosen, since_parent, unknown, wrong, relevant, caps, limited)


def certain_hold(questions: Questions, settings: Settings) -> str:
    """Why no child can ship, with a remedy; empty if a child can."""
    count, wanted = len(questions.held_out), settings.gate_min_queries
    if count < wanted:
        why = ""
        if questions.unknown:
            why += (
                f"; {questions.unknown:,} more are about documents that are not loaded "
                "(`retrail documents load`)"
            )
        if questions.wrong:
            why += f"; {questions.wrong:,} pairs do not count because the answer was wrong"
        return (
            f"there are {count:,} usable held-out queries, and the gate needs {wanted:,} "
            f"(RETRAIL_GATE_MIN_QUERIES){why}; a fifth of all queries are held out, so wait "
            "until agents have asked more. The pairs enter the next run"
        )
    if questions.regression is not None and not questions.regression:
        return (
            "no document of the regression set is in the corpus (RETRAIL_GATE_REGRESSION): load "
            "its documents, or correct their ids"
        )
    return ""


def encoded(
    name: Name, encoder: Encoder, documents: Sequence[Document], progress: Progress
) -> Vectors:
    """Encode all documents."""
    return encoder.encode_documents([one.embedded_text() for one in documents], progress=progress)


def compare(
    parent: Encoder,
    child: Encoder,
    questions: Questions,
    corpus: Corpus,
    *,
    settings: Settings,
    progress: StageProgress,
    ancestor: tuple[int, Encoder] | None = None,
    vectors: VectorsOf = encoded,
    hits: Hits | None = None,
) -> tuple[GateDecision, bytes]:
    """Evaluate all models over the same pool, and decide; a certain hold needs no evaluation.

    Args:
        progress: called while documents are encoded; its exceptions end the evaluation.
        ancestor: version and encoder of an earlier release that the child is also compared with.
        vectors: encodes documents, or finds their vectors.
        hits: of the parent in the whole corpus; by default the pool of a larger corpus is a sample.

    Returns:
        The decision, and the file of results and pool (:mod:`trainer.evaluate.frozen`).
    """
    rule, seed = Rule(settings.gate_margin, settings.gate_min_queries), settings.train_seed
    if why := certain_hold(questions, settings):
        held = GateDecision(decision="hold", reason=why, margin=rule.margin, caps=questions.caps)
        return _counted(held), b""
    asked, own = questions.held_out, questions.regression or {}
    models: dict[Name, Encoder] = {"parent": parent, "child": child}
    if ancestor is not None:
        models["ancestor"] = ancestor[1]
    pool = corpus.get(_pool(parent, questions, corpus, hits, seed))
    log.info("evaluating", queries=len(asked), regression=len(own), documents=len(pool))
    ids = sorted(pool)
    documents = [pool[doc_id] for doc_id in ids]
    visible = _visible(questions, documents)
    found, found_own = {}, {}
    for name, encoder in models.items():
        known = vectors(name, encoder, documents, partial(progress, f"evaluating the {name}"))
        found[name] = evaluation.evaluate_vectors(encoder, asked, ids, known, visible)
        found_own[name] = evaluation.evaluate_vectors(encoder, own, ids, known)
    decision = gate.decide(
        gate.compare(found["parent"], found["child"], relevant=asked, seed=seed),
        rule,
        since_parent=questions.since_parent,
        ancestor=ancestor
        and (
            ancestor[0],
            gate.compare(found["ancestor"], found["child"], relevant=asked, seed=seed),
        ),
        regression_set=questions.regression is not None,
        regression=gate.compare(found_own["parent"], found_own["child"], relevant=own, seed=seed),
        caps=questions.caps,
        documents=len(ids),
    )
    results = (
        frozen.rows(frozen.HELD_OUT, asked, found["parent"], found["child"], questions.tenants),
        frozen.rows(frozen.REGRESSION, own, found_own["parent"], found_own["child"]),
    )
    return _counted(decision), frozen.dump(results, ids, since_parent=questions.since_parent)


def _counted(decision: GateDecision) -> GateDecision:
    """Show a decision in the metrics."""
    metrics.GATE_DECISIONS.labels(decision.decision).inc()
    if decision.held_out is not None:
        metrics.GATE_NDCG.labels("parent").set(decision.held_out.parent_metrics.ndcg_at_10)
        metrics.GATE_NDCG.labels("child").set(decision.held_out.child_metrics.ndcg_at_10)
    return decision


def _pool(
    parent: Encoder, questions: Questions, corpus: Corpus, hits: Hits | None, seed: int
) -> Iterable[str]:
    """The whole corpus, if it is small; otherwise see :func:`evaluation.choose_pool`."""
    sample = corpus.sample(evaluation.POOL + 1, seed)
    if len(sample) <= evaluation.POOL:
        return sample
    judged = [*questions.held_out.values(), *(questions.regression or {}).values()]
    texts = sorted({*questions.held_out, *(questions.regression or {})})
    tenants = [questions.tenants.get(text) for text in texts]
    found = hits(texts, parent.encode_queries(texts), tenants) if hits is not None else ()
    relevant = {doc_id for some in judged for doc_id in some}
    return evaluation.choose_pool(relevant, found, sample, limit=evaluation.POOL)


def _tenants(pairs: Iterable[LabelledPair], owners: Set[str]) -> dict[str, str]:
    """The tenant of each normalized query (:attr:`Questions.tenants`); empty without owners."""
    asking: dict[str, set[str]] = defaultdict(set)
    for pair in pairs if owners else ():
        for query in (pair.query, *pair.earlier_queries):
            asking[normalize_query(query)].add(pair.tenant)
    return {
        query: "".join(some) if len(some) == 1 and some <= owners else ""
        for query, some in asking.items()
    }


def _known(
    relevant: Mapping[str, Set[str]], corpus: Corpus, tenants: Mapping[str, str]
) -> dict[str, Set[str]]:
    """Queries with their relevant documents that they can find, without queries that have none."""
    documents = corpus.get({doc_id for some in relevant.values() for doc_id in some})
    known = {
        query: {
            doc_id
            for doc_id in some & documents.keys()
            if may_see(tenants.get(normalize_query(query)), documents[doc_id].owner)
        }
        for query, some in relevant.items()
    }
    return {query: some for query, some in known.items() if some}


def _visible(questions: Questions, documents: Sequence[Document]) -> dict[str, NDArray[np.bool_]]:
    """For each limited query, which documents of the pool it can find."""
    owners = [document.owner for document in documents]
    by_tenant = {
        tenant: np.array([may_see(tenant, owner) for owner in owners])
        for tenant in {*questions.tenants.values()}
    }
    return {query: by_tenant[tenant] for query, tenant in questions.tenants.items()}
