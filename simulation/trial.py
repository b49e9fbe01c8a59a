"""Scripted agents on a running stack, without an LLM: ``python -m simulation.trial [NEEDS]``.

They are those of ``retrail up --sample``, and publish what they do. Settings are ``RETRAIL_…``
variables. With fewer NEEDS than the demo's corpus has, only documents that serve them are loaded.
"""

import sys
from collections.abc import Sequence

import structlog

from retrail_runtime.process import configure
from schemas.errors import RetrailError
from schemas.settings import Settings, load
from serving.retriever import Retriever
from simulation import fleet, stdlib_corpus
from simulation.corpus import Need
from simulation.demo import stages

log = structlog.get_logger(__name__)

SEED = 0
AGENTS_PER_NEED = 2


def assignments(needs: Sequence[Need]) -> list[fleet.Assignment]:
    """The agents and their needs; always the same."""
    return fleet.assignments(needs, AGENTS_PER_NEED * len(needs), seed=SEED, turn=1)


def run(settings: Settings, limit: int | None = None) -> fleet.Work:
    """Load documents, wait until they are indexed, and let agents search them.

    Raises:
        RetrailError: Kafka, Milvus or the index worker fails.
    """
    corpus = stdlib_corpus.load()
    needs = corpus.training[:limit]
    wanted = {doc_id for need in needs for doc_id in need.relevant}
    everything = len(needs) == len(corpus.training)
    documents = [each for each in corpus.documents if everything or each.doc_id in wanted]
    stages.load_documents(settings, documents)
    log.info("documents loaded", documents=len(documents))
    stages.wait_until_indexed(settings, len(documents), on_wait=lambda done: None)
    log.info("documents indexed; agents search", needs=len(needs))
    agents = assignments(needs)
    with Retriever(settings) as retriever:
        done = fleet.work(agents, retriever, settings, on_progress=lambda done, of: None)
    log.info("agents ended", agents=len(agents), correct=done.correct, events=done.events)
    return done


if __name__ == "__main__":
    configure()
    try:
        run(load(), int(sys.argv[1]) if sys.argv[1:] else None)
    except RetrailError as error:
        sys.exit(str(error))
