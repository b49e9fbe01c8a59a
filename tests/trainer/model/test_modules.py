"""Each kind of model that Retrail supports: trained, saved, loaded, gated and encoded for search.

Beside ``SentenceTransformer`` itself, which must give the same vectors from the same folder.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn

from tests.tiny_model import write_tiny_model
from tests.trainer.labelled import misleading_examples, training_config
from trainer.evaluate import evaluation, gate
from trainer.fit import finetune
from trainer.model.encoder import Encoder
from trainer.registry.manifest import digest_of

EXAMPLES = misleading_examples()
QUERIES = [example.query for example in EXAMPLES]
DOCUMENTS = {e.positive_id: e.positive_text for e in EXAMPLES}
DOCUMENTS |= {doc_id: text for e in EXAMPLES for doc_id, text in e.negatives}
CONFIG = training_config(epochs=24, max_tokens=48)


class Kind:
    """A function that builds a model of one kind on tiny transformers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def transformer(self, seed: int = 0) -> Transformer:
        return Transformer(str(write_tiny_model(self._folder / str(seed), seed=seed)))

    def of(self, *modules: nn.Module, **options: Any) -> SentenceTransformer:
        return SentenceTransformer(modules=list(modules), device="cpu", **options)

    def mean(self) -> SentenceTransformer:
        return self.of(self.transformer(), Pooling(32, "mean"))

    def cls(self) -> SentenceTransformer:
        return self.of(self.transformer(), Pooling(32, "cls"), Normalize())

    def last_token(self) -> SentenceTransformer:
        return self.of(self.transformer(), Pooling(32, "lasttoken"), Normalize())

    def dense(self) -> SentenceTransformer:
        torch.manual_seed(2)
        return self.of(self.transformer(), Pooling(32), Dense(32, 24), Normalize())

    def prompts(self) -> SentenceTransformer:
        prompts = {"query": "ask: ", "passage": "read: "}
        return self.of(self.transformer(), Pooling(32), Normalize(), prompts=prompts)

    def prompts_left_out(self) -> SentenceTransformer:
        prompts = {"query": "ask: ", "document": "read: "}
        pooling = Pooling(32, include_prompt=False)
        return self.of(self.transformer(), pooling, Normalize(), prompts=prompts)

    def truncated(self) -> SentenceTransformer:
        return self.of(self.transformer(), Pooling(32), Normalize(), truncate_dim=20)

    def router(self) -> SentenceTransformer:
        query = [self.transformer(0), Pooling(32)]
        document = [self.transformer(1), Pooling(32, "cls")]
        return self.of(Router.for_query_document(query, document), Normalize())

    def router_of_heads(self) -> SentenceTransformer:
        torch.manual_seed(3)
        heads = Router.for_query_document([Dense(32, 24)], [Dense(32, 24)])
        return self.of(self.transformer(), Pooling(32), heads, Normalize())


KINDS: dict[str, tuple[Callable[[Kind], SentenceTransformer], int]] = {
    "mean": (Kind.mean, 32),
    "CLS": (Kind.cls, 32),
    "last token": (Kind.last_token, 32),
    "Dense": (Kind.dense, 24),
    "prompts": (Kind.prompts, 32),
    "prompts left out": (Kind.prompts_left_out, 32),
    "truncate_dim": (Kind.truncated, 20),
    "Router": (Kind.router, 32),
    "Router of heads": (Kind.router_of_heads, 24),
}


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each kind, as sentence-transformers saves it."""
    build, _ = KINDS[request.param]
    found = tmp_path_factory.mktemp("models") / request.param
    build(Kind(tmp_path_factory.mktemp("parts"))).save(str(found), create_model_card=False)
    return found


def load(folder: Path) -> Encoder:
    return Encoder.load(folder, precision="float32", device="cpu")


def near(encoder: Encoder, folder: Path) -> None:
    """Assert that the encoder's vectors equal those of sentence-transformers for ``folder``."""
    theirs = SentenceTransformer(str(folder), device="cpu")
    documents, options = list(DOCUMENTS.values()), {"normalize_embeddings": True}
    prompt = next(filter(None, map(theirs.prompts.get, ("document", "passage"))), None)
    for found, expected in (
        (encoder.encode_queries(QUERIES), theirs.encode_query(QUERIES, **options)),
        (
            encoder.encode_documents(documents),
            theirs.encode_document(documents, prompt=prompt, **options),
        ),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_vectors_are_those_of_sentence_transformers(folder: Path) -> None:
    encoder = load(folder)

    assert encoder.dimension == KINDS[folder.name][1]
    near(encoder, folder)


def test_a_vector_is_the_same_alone_and_in_a_batch(folder: Path) -> None:
    encoder = Encoder.load(folder, precision="bfloat16", device="cpu")

    for encode, texts in (
        (encoder.encode_queries, QUERIES),
        (encoder.encode_documents, list(DOCUMENTS.values())),
    ):
        for text, vector in zip(texts, encode(texts), strict=True):
            (alone,) = encode([text])
            if any(isinstance(module, Dense) for module in encoder.model.modules()):
                np.testing.assert_allclose(alone, vector, atol=1e-6)
            else:
                np.testing.assert_array_equal(alone, vector)


def test_a_model_is_trained_saved_loaded_and_gated(folder: Path, tmp_path: Path) -> None:
    parent = load(folder)

    child = finetune.finetune(parent, EXAMPLES, CONFIG).encoder
    for name in ("one", "two"):
        child.save(tmp_path / name)
    again = load(tmp_path / "one")

    near(again, tmp_path / "one")
    np.testing.assert_array_equal(again.encode_queries(QUERIES), child.encode_queries(QUERIES))
    assert again.prompts == parent.prompts
    assert [type(module) for module in again.model] == [type(module) for module in parent.model]
    assert digest_of(tmp_path / "one") == digest_of(tmp_path / "two")
    queries = {e.query: {e.positive_id} for e in EXAMPLES}
    measured = [evaluation.evaluate(encoder, queries, DOCUMENTS) for encoder in (parent, again)]
    compared = gate.compare(*measured)
    assert compared is not None
    assert compared.difference > 0.2
    assert gate.decide(compared, gate.Rule(margin=0.02, min_queries=4)).decision == "ship"


def test_a_repeated_run_gives_the_same_digest(folder: Path, tmp_path: Path) -> None:
    short = CONFIG.model_copy(update={"epochs": 1})
    for name in ("one", "two"):
        finetune.finetune(load(folder), EXAMPLES, short).encoder.save(tmp_path / name)

    assert digest_of(tmp_path / "one") == digest_of(tmp_path / "two")


def test_all_weights_are_trained(folder: Path) -> None:
    parent = load(folder)
    short = CONFIG.model_copy(update={"epochs": 1})
    child = finetune.finetune(parent, EXAMPLES, short).encoder

    before, after = (dict(encoder.model.named_parameters()) for encoder in (parent, child))
    unmoved = {name for name, weights in after.items() if torch.equal(weights, before[name])}
    # Embeddings of tokens that do not occur, and BERT's pooler, which Pooling does not use.
    assert all("embeddings" in name or "pooler" in name for name in unmoved), unmoved
