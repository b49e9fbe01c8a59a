"""Compares parent and child on the held-out queries of agents, and on the regression set."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
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
from trainer.evaluate.regression_set import RegressionSet
from trainer.model.encoder import Encoder

log = structlog.get_logger(__name__)


class Corpus(Protocol):
    """Source of documents, such as a local mirror of ``documents``."""

    def all_ids(self) -> Sequence[str]: ...
    def get(self, doc_ids: Iterable[str]) -> Mapping[str, Document]: ...


@dataclass(frozen=True, slots=True)
class Questions:
    """The queries of a comparison.

    Attributes:
        held_out: relevant documents in the corpus, by held-out query.
        since_parent: whether all these queries were first asked after those of the parent's run.
        unknown: number of held-out queries without a relevant document in the corpus.
        regression: grades of documents in the corpus, by query of the regression set; ``None``
            without a regression set.
        caps: of the held-out queries.
    """

    held_out: Mapping[str, Set[str]]
    since_parent: bool
    unknown: int
    regression: RegressionSet | None
    caps: Caps


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
        new: relevant pairs of held-out queries in the run's ranges.
        earlier: relevant pairs of held-out queries in the parent's ranges.
        trained: pairs of the child or an ancestor; their queries are excluded.
        corpus: of documents.
        settings: of the gate, and its seed.
        caps: of the held-out queries; by default :func:`trainer.evaluate.queries.caps_of`.

    Raises:
        InputError: the regression set (RETRAIL_GATE_REGRESSION) cannot be read.
    """
    new, earlier = list(new), list(earlier)
    caps = caps or queries.caps_of(settings)
    left_out = {normalize_query(pair.query) for pair in trained}
    asked_before = {
        normalize_query(query) for pair in earlier for query in (pair.query, *pair.earlier_queries)
    }
    own = regression_set.load(settings.gate_regression) if settings.gate_regression else None
    fresh = queries.relevance(new, left_out | asked_before, caps, settings.train_seed)
    held_out = _known(fresh, corpus)
    since_parent = bool(earlier) and len(held_out) >= settings.gate_min_queries
    if earlier and not since_parent:
        fresh = queries.relevance([*earlier, *new], left_out, caps, settings.train_seed)
        held_out = _known(fresh, corpus)
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
    return Questions(held_out, since_parent, len(fresh) - len(held_out), relevant, caps)


def certain_hold(questions: Questions, settings: Settings) -> str:
    """Why no child can ship, with a remedy; empty if a child can."""
    count, wanted = len(questions.held_out), settings.gate_min_queries
    if count < wanted:
        unknown = (
            f"; {questions.unknown:,} more are about documents that are not loaded "
            "(`retrail documents load`)"
            if questions.unknown
            else ""
        )
        return (
            f"there are {count:,} usable held-out queries, and the gate needs {wanted:,} "
            f"(RETRAIL_GATE_MIN_QUERIES){unknown}; a fifth of all queries are held out, so wait "
            "until agents have asked more. The pairs enter the next run"
        )
    if questions.regression is not None and not questions.regression:
        return (
            "no document of the regression set is in the corpus (RETRAIL_GATE_REGRESSION): load "
            "its documents, or correct their ids"
        )
    return ""


def compare(
    parent: Encoder,
    child: Encoder,
    questions: Questions,
    corpus: Corpus,
    *,
    settings: Settings,
    progress: StageProgress,
    ancestor: tuple[int, Encoder] | None = None,
) -> tuple[GateDecision, bytes]:
    """Evaluate all models over the same pool, and decide; a certain hold needs no evaluation.

    Args:
        progress: called while documents are encoded; its exceptions end the evaluation.
        ancestor: version and encoder of an earlier release that the child is also compared with.

    Returns:
        The decision, and the per-query results (:func:`trainer.evaluate.gate.results`).
    """
    rule, seed = Rule(settings.gate_margin, settings.gate_min_queries), settings.train_seed
    if why := certain_hold(questions, settings):
        metrics.GATE_DECISIONS.labels("hold").inc()
        decision = GateDecision(
            decision="hold", reason=why, margin=rule.margin, caps=questions.caps
        )
        return decision, b""
    asked, own = questions.held_out, questions.regression or {}
    models = {"parent": parent, "child": child}
    if ancestor is not None:
        models["ancestor"] = ancestor[1]
    documents = corpus.get(corpus.all_ids())
    pool = evaluation.choose_pool(
        {doc_id: document.embedded_text() for doc_id, document in documents.items()},
        {query: {*asked.get(query, ()), *own.get(query, ())} for query in {**asked, **own}},
        list(models.values()),
        seed=seed,
        progress=partial(progress, "choosing documents"),
    )
    log.info("evaluating", queries=len(asked), regression=len(own), documents=len(pool))
    ids = sorted(pool)
    found, found_own = {}, {}
    for name, encoder in models.items():
        vectors = encoder.encode_documents(
            [pool[doc_id] for doc_id in ids], progress=partial(progress, f"evaluating the {name}")
        )
        found[name] = evaluation.evaluate_vectors(encoder, asked, ids, vectors)
        found_own[name] = evaluation.evaluate_vectors(encoder, own, ids, vectors)
    relevant = {query: [d for d, grade in some.items() if grade] for query, some in own.items()}
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
        regression=gate.compare(
            found_own["parent"], found_own["child"], relevant=relevant, seed=seed
        ),
        manual=settings.gate == "manual",
        caps=questions.caps,
    )
    metrics.GATE_DECISIONS.labels(decision.decision).inc()
    if decision.held_out is not None:
        metrics.GATE_NDCG.labels("parent").set(decision.held_out.parent_metrics.ndcg_at_10)
        metrics.GATE_NDCG.labels("child").set(decision.held_out.child_metrics.ndcg_at_10)
    ones = {query: dict.fromkeys(sorted(some), 1) for query, some in asked.items()}
    results = gate.results("held out", ones, found["parent"], found["child"])
    return decision, results + gate.results(
        "regression", own, found_own["parent"], found_own["child"]
    )


def _known(relevant: Mapping[str, Set[str]], corpus: Corpus) -> dict[str, Set[str]]:
    """Queries with their relevant documents in the corpus, without queries that have none."""
    known = corpus.get({doc_id for some in relevant.values() for doc_id in some}).keys()
    return {query: some & known for query, some in relevant.items() if some & known}
