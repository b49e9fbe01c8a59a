"""`retrail train --run … --verify` on real topics."""

from pathlib import Path
from typing import Any

import pytest

from consumers import kafka
from consumers.training import train_now
from consumers.training_verify import Difference, verify
from schemas.documents import Document
from schemas.errors import InputError
from schemas.settings import Settings
from schemas.topics import Topics
from tests.consumers.training_world import World
from tests.tiny_model import write_tiny_model


@pytest.fixture
def world(settings: Settings, topics: Topics, tmp_path: Path) -> World:
    changes = {
        "model": str(write_tiny_model(tmp_path / "model")),
        "max_tokens": 32,
        "train_epochs": 1,
        "gate_margin": 1.0,
        "gate_min_queries": 1,
        "outcome_policy": "weight",
    }
    return World(settings.model_copy(update=changes))


def test_a_run_is_verified_against_the_topics(
    world: World, retrail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.open()
    world.pairs(20)
    assert train_now(world.settings) is not None
    # Repeats and others' records in the ranges change nothing; some pairs weigh half.
    again = world.pairs(20, outcome="incorrect")
    world.publish(again[:5])
    kafka.publish_all(world.producer, world.topics.labelled_pairs, [(b"x", b"{")])
    assert train_now(world.settings) is not None
    first, second = world.manifests()
    assert second.replayed
    world.pairs(10)
    read: dict[str, int] = {}

    def progress(topic: str, count: int) -> None:
        read[topic] = read.get(topic, 0) + count

    for manifest in (first, second):
        found = verify(world.settings, manifest.run_id[:8], progress=progress)
        assert found.differences == ()
        assert found.equal
    # Of the first run its own ranges, of the second also what its parent learned from.
    assert read[world.topics.labelled_pairs] == 20 + (26 + 20)

    for name, value in world.settings.model_dump(mode="json", exclude_defaults=True).items():
        monkeypatch.setenv(f"RETRAIL_{name.upper()}", str(value))
    done = retrail("train", "--run", second.run_id, "--verify")
    assert done.status == 0
    assert "is what the topics give, byte for byte" in done.out

    pair = next(p for p in again if p.pair_id in second.pair_ids)
    changed, deleted = pair.positive, pair.negatives[0]
    kafka.publish_all(
        world.producer,
        world.topics.documents,
        [
            (changed.encode(), Document(doc_id=changed, text="new text").to_json()),
            (deleted.encode(), None),
        ],
    )
    assert verify(world.settings, second.run_id).differences == (
        Difference("document changed", changed),
        Difference("document deleted", deleted),
    )
    done = retrail("train", "--run", second.run_id, "--verify")
    assert done.status == 1
    assert f"documents whose text changed since: 1 ({changed})" in done.out
    assert f"documents deleted since: 1 ({deleted})" in done.out
    assert "can be repeated all the same" in done.out

    (world.settings.registry_dir / second.training_file.location).unlink()
    with pytest.raises(InputError, match="cannot be verified: Cannot read the training file"):
        verify(world.settings, second.run_id)


def test_verify_wants_a_run(retrail: Any) -> None:
    done = retrail("train", "--verify")
    assert done.status == 2
    assert "--run ID" in done.err
