"""The scripted agents of ``retrail up --sample`` on a running stack, without an LLM.

The documents are those of the demo; the agents search them with the untrained retriever. What they
do is written to a file and not published, so that a user can do the next steps by hand
(docs/tutorial.md).

``python -m simulation.trial [NEEDS]`` publishes it. Settings are ``RETRAIL_…`` variables. With
fewer NEEDS than the corpus has, only documents that serve them are loaded.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from retrail_runtime.files import atomic_write
from retrail_runtime.process import configure
from schemas.documents import Document
from schemas.errors import RetrailError
from schemas.settings import Settings, load
from serving.retriever import Hit, Retriever
from simulation import fleet, stdlib_corpus
from simulation.corpus import Need
from simulation.demo import stages
from simulation.scripted import HITS

if TYPE_CHECKING:
    # It needs psutil, which the image that runs this module lacks.
    from deploy.stack import LocalStack
    from simulation.demo.view import View

log = structlog.get_logger(__name__)

SEED = 0
AGENTS_PER_NEED = 2

DEFAULTS = {
    "index_max_tokens": 128,
    "train_epochs": 2,
    "train_learning_rate": 5e-5,
    "train_negatives": 2,
}
"""Of the sample, for training within minutes on small data."""

ROLES = ("judge", "mine", "index")
"""Workers of the sample's stack. Without a trainer, so that ``retrail train`` makes the release."""


def assignments(needs: Sequence[Need]) -> list[fleet.Assignment]:
    """The agents and their needs; always the same."""
    return fleet.assignments(needs, AGENTS_PER_NEED * len(needs), seed=SEED, turn=1)


def settings_of(given: Settings) -> Settings:
    """The given settings, with :data:`DEFAULTS` for those that are not set."""
    defaults = {name: DEFAULTS[name] for name in DEFAULTS if name not in given.model_fields_set}
    return given.model_copy(update=defaults)


def prepare(stack: "LocalStack", view: "View") -> Path:
    """Load and index the documents, and write the trajectories of the sample.

    Returns:
        The file of trajectories in the data directory. If it exists, nothing is done.

    Raises:
        RetrailError: a part of the stack failed.
    """
    path = stack.settings.data_dir / "sample" / "trajectories.jsonl"
    if path.exists():
        return path
    corpus = stdlib_corpus.load()
    _load(stack, view, corpus.documents)
    with (
        Retriever(stack.settings) as retriever,
        view.stage("agents", f"search for {len(corpus.training):,} needs; no LLM") as stage,
    ):

        def search(queries: Sequence[str]) -> list[list[Hit]]:
            stack.check()
            return [found.hits for found in retriever.search_many(queries, HITS)]

        trajectories = fleet.watch(
            assignments(corpus.training),
            search,
            progress=lambda done, of: view.progress(stage, done, of),
        )
        stage.note = f"{len(trajectories):,} trajectories"
    lines = (event.to_json() + b"\n" for events in trajectories.values() for event in events)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, b"".join(lines))
    return path


def _load(stack: "LocalStack", view: "View", documents: Sequence[Document]) -> None:
    with view.stage("documents", f"load {len(documents):,} documents and index them") as stage:
        stages.load_documents(stack.settings, documents)

        def on_wait(done: int) -> None:
            stack.check()
            view.progress(stage, done, len(documents))

        stages.wait_until_indexed(stack.settings, len(documents), on_wait=on_wait)


def run(settings: Settings, limit: int | None = None) -> fleet.Work:
    """Load documents, wait until they are indexed, and let agents search them and publish.

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
