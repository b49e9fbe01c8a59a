"""The sample of ``retrail up --sample``: documents, and trajectories of agents that searched them.

The documents are those of the demo. Scripted agents search them with the untrained retriever; what
they do is written to a file and not published, so that a user can do the next steps by hand
(docs/tutorial.md).
"""

from collections.abc import Sequence
from pathlib import Path

from deploy.stack import LocalStack
from retrail_runtime.files import atomic_write
from schemas.settings import Settings
from serving.retriever import Hit, Retriever
from simulation import stdlib_corpus
from simulation.corpus import Corpus
from simulation.demo import stages
from simulation.demo.view import View
from simulation.recording import watch
from simulation.scripted import HITS
from simulation.trial import assignments

DEFAULTS = {
    "index_max_tokens": 128,
    "train_epochs": 2,
    "train_learning_rate": 5e-5,
    "train_negatives": 2,
}
"""For training within minutes on small data."""

ROLES = ("judge", "mine", "index")
"""Workers of the sample's stack. Without a trainer, so that ``retrail train`` makes the release."""


def settings_of(given: Settings) -> Settings:
    """The given settings, with :data:`DEFAULTS` for those that are not set."""
    defaults = {name: DEFAULTS[name] for name in DEFAULTS if name not in given.model_fields_set}
    return given.model_copy(update=defaults)


def prepare(stack: LocalStack, view: View) -> Path:
    """Load and index the documents, and write the trajectories.

    Returns:
        The file of trajectories in the data directory. If it exists, nothing is done.

    Raises:
        RetrailError: a part of the stack failed.
    """
    path = stack.settings.data_dir / "sample" / "trajectories.jsonl"
    if path.exists():
        return path
    corpus = stdlib_corpus.load()
    _load(stack, view, corpus)
    with (
        Retriever(stack.settings) as retriever,
        view.stage("agents", f"search for {len(corpus.training):,} needs; no LLM") as stage,
    ):

        def search(queries: Sequence[str]) -> list[list[Hit]]:
            stack.check()
            return [found.hits for found in retriever.search_many(queries, HITS)]

        trajectories = watch(
            assignments(corpus.training),
            search,
            progress=lambda done, of: view.progress(stage, done, of),
        )
        stage.note = f"{len(trajectories):,} trajectories"
    lines = (event.to_json() + b"\n" for events in trajectories.values() for event in events)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, b"".join(lines))
    return path


def _load(stack: LocalStack, view: View, corpus: Corpus) -> None:
    documents = corpus.documents
    with view.stage("documents", f"load {len(documents):,} documents and index them") as stage:
        stages.load_documents(stack.settings, documents)

        def on_wait(done: int) -> None:
            stack.check()
            view.progress(stage, done, len(documents))

        stages.wait_until_indexed(stack.settings, len(documents), on_wait=on_wait)
