"""What the gate takes from the live collection, on real Milvus."""

from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from consumers import releases
from consumers.training.live_index import LiveIndex
from schemas.documents import content_hash
from schemas.settings import Settings
from schemas.topics import Topics
from tests import index_harness as harness
from tests.tiny_model import write_tiny_model
from trainer.registry.registry import Registry


@pytest.fixture
def small(settings: Settings, topics: Topics, tmp_path: Path) -> Settings:
    model = write_tiny_model(tmp_path / "first", seed=1)
    return settings.model_copy(update={"model": str(model), "index_max_tokens": 64})


def test_hits_and_vectors_are_those_of_the_parent(
    small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = harness.documents(40)
    harness.publish(small, texts)
    with harness.working(small):
        harness.serves(small, 1)
    model = releases.read(small).by_version[1].model
    encoder = Registry.of(small).load(model)
    index = LiveIndex(small, model.digest)

    found = index.vectors([*texts, 'none "quoted"'])
    assert found.keys() == {content_hash(text) for text in texts.values()}
    own = encoder.encode_documents(list(texts.values()))
    stored = np.stack([found[content_hash(text)] for text in texts.values()])
    np.testing.assert_allclose(stored, own, atol=1e-5)

    queries = ["warm river", texts["d7"]]
    asked = encoder.encode_queries(queries)
    hits = index.hits(queries, asked, [None, None])
    assert [sorted(some) for some in hits] == [sorted(texts)] * 2
    assert hits[1][0] == "d7"
    assert index.hits(queries, asked, ["a", ""]) == hits, "all documents are everyone's"

    with capture_logs() as logged:
        assert LiveIndex(small, "0" * 64).hits(queries, asked, [None, None]) == []
        away = small.model_copy(update={"milvus_uri": "http://127.0.0.1:1"})
        assert LiveIndex(away, model.digest).vectors(list(texts)) == {}
    reasons = [entry["reason"] for entry in logged if entry["log_level"] == "warning"]
    assert reasons[0] == "it has another model"
    assert "does not answer" in reasons[1]
