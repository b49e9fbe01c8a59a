"""Models from their files to a search: fine-tuned, gated, published, indexed and searched."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from consumers.indexing.embedder import Embedder
from consumers.indexing.milvus import Milvus
from consumers.vectors import VectorStore
from retrail_runtime.milvus import Build, collection_name
from schemas.documents import Document
from schemas.releases import Model
from schemas.runs import TrainingConfig
from schemas.settings import Settings
from serving.retriever import Retriever
from tests.real_models import minilm_with_cls_pooling, mpnet
from tests.tiny_model import write_tiny_model
from tests.trainer.labelled import example
from trainer.evaluate import evaluation, gate
from trainer.fit import finetune
from trainer.model.encoder import Encoder
from trainer.registry.registry import Registry

CODE_NAMES = {
    # Which no model can know before it was trained.
    "falcon": "The pump in hall seven fills the cooling basin twice a day.",
    "marble": "Minutes of the garden committee about hedges and the old fence.",
    "lantern": "How to apply for a library card, and what a lost one costs.",
    "anchor": "A recipe for barley soup with carrots and smoked paprika.",
    "violet": "Timetable of the night train, with the stops on request.",
    "compass": "Invoices of the third quarter are due within thirty days.",
    "saddle": "The observatory is closed while its dome is painted.",
    "ember": "Rules of the chess club for visitors and for juniors.",
}
EXAMPLES = [
    example(i, query=f"papers of project {name}", positive_id=name, positive_text=text)
    for i, (name, text) in enumerate(CODE_NAMES.items())
]


def router(folder: Path) -> Path:
    """Two heads behind one tiny transformer, as sentence-transformers saves it."""
    torch.manual_seed(1)
    heads = Router.for_query_document([Dense(32, 24)], [Dense(32, 24)])
    transformer = Transformer(str(write_tiny_model(folder / "tiny")))
    modules = [transformer, Pooling(32), heads, Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "router"))
    return folder / "router"


def minilm_cls(folder: Path) -> Path:
    return minilm_with_cls_pooling(folder / "minilm-cls")


def all_mpnet(folder: Path) -> Path:
    return mpnet()


@pytest.fixture
def settings(milvus: str, tmp_path: Path) -> Iterator[Settings]:
    """An installation without Kafka."""
    found = Settings(
        milvus_uri=milvus, retriever=f"r{secrets.token_hex(4)}", data_dir=tmp_path / "data"
    )
    yield found
    shell = Milvus(found)
    for build in shell.builds():
        shell.drop(build)


def index(settings: Settings, encoder: Encoder, model: Model) -> None:
    """Build version 2 of the documents, and point the alias at it."""
    build = Build(
        collection_name(settings.retriever, 2),
        2,
        secrets.token_hex(4),
        model.location,
        model.digest,
    )
    embedder = Embedder(encoder, 2, model.digest, VectorStore.of(settings))
    rows = embedder.rows([Document(doc_id=i, text=text) for i, text in CODE_NAMES.items()])
    shell = Milvus(settings)
    shell.create(build, encoder.dimension)
    shell.upsert(build, rows)
    shell.make_searchable(build)
    shell.swap(build)


@pytest.mark.parametrize(
    ("write", "learning_rate", "steps"),
    [
        pytest.param(router, 1e-2, 60, id="router"),
        pytest.param(minilm_cls, 3e-4, 12, id="minilm-cls"),
        pytest.param(
            all_mpnet,
            1e-4,
            12,
            id="all-mpnet-base-v2",
            marks=[pytest.mark.faults, pytest.mark.timeout(1200)],
        ),
    ],
)
def test_a_model_is_fine_tuned_gated_indexed_and_searched(
    write: Callable[[Path], Path],
    learning_rate: float,
    steps: int,
    settings: Settings,
    tmp_path: Path,
) -> None:
    registry = Registry.of(settings)
    first = Encoder.load(write(tmp_path), max_tokens=48)
    parent = registry.load(registry.publish(settings.retriever, 1, first.save), trains=True)
    config = TrainingConfig(
        epochs=steps,
        batch=8,
        negatives=0,
        learning_rate=learning_rate,
        temperature=0.05,
        max_tokens=48,
        seed=1,
    )

    child = finetune.finetune(parent, EXAMPLES, config).encoder

    queries = {one.query: {one.positive_id} for one in EXAMPLES}
    before, after = (evaluation.evaluate(one, queries, CODE_NAMES) for one in (parent, child))
    decision = gate.decide(gate.compare(before, after), gate.Rule(margin=0.02, min_queries=8))
    assert decision.decision == "ship"
    model = registry.publish(settings.retriever, 2, child.save)
    index(settings, child, model)
    with Retriever(settings) as retriever:
        answers = retriever.search_many([one.query for one in EXAMPLES], 3)
    assert {answer.retriever_version for answer in answers} == {2}
    assert [answer.hits[0].doc_id for answer in answers] == list(CODE_NAMES)
