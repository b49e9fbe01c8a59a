"""Runs: selection, release and failures."""

import hashlib
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from consumers import releases
from consumers.training import run
from consumers.training.run import RunContext
from consumers.training.worker import Trainer, train_now
from consumers.vectors import VectorStore
from deploy import topics as topics_module
from retrail import Publisher
from retrail_runtime import kafka
from schemas.documents import content_hash
from schemas.errors import InputError, RestartRequiredError, TopicMismatchError
from schemas.releases import Release
from tests.consumers.training.world import DOCUMENTS, World, metric, turn_until
from tests.trained import a_decision, a_manifest, a_release
from tests.waiting import eventually
from trainer.data.draws import is_held_out
from trainer.model.encoder import Encoder
from trainer.registry.registry import Registry


def test_invalid_records_are_skipped(world: World, trainer: Callable[[], Trainer]) -> None:
    world.open()
    bad = metric("retrail_consumer_invalid_records_total", stage="pairs")
    kafka.send_all(world.producer, world.topics.labelled_pairs, [(b"x", b"{"), (b"y", None)])
    kafka.send_all(world.producer, world.topics.documents, [(b"x", b"{")])
    good = world.pairs(30)
    unknown = world.pairs(2, positive="nobody knows", query="same query")
    irrelevant = world.pairs(3, verdict="irrelevant")
    world.publish(good[:4])
    assert not is_held_out("same query")
    one = trainer()
    turn_until(lambda: world.live() == 2, one)
    [manifest] = world.manifests()
    new, _ = world.trained(manifest)
    assert set(new) == {p.pair_id for p in good if not is_held_out(p.query)}
    assert not set(new) & {p.pair_id for p in (*unknown, *irrelevant)}
    assert manifest.left_out == {
        "held out": sum(is_held_out(p.query) for p in good),
        "irrelevant": 3,
        "no text": 2,
        "repeated": 4,
    }
    assert metric("retrail_consumer_invalid_records_total", stage="pairs") == bad + 2


def test_pairs_of_a_rolled_back_run_do_not_train_again(world: World) -> None:
    world.open()
    bad = world.pairs(12)
    train_now(world.settings)
    live = releases.rollback(world.settings)
    assert (live.version, live.quarantined) == (1, (world.manifests()[0].run_id,))
    good = world.pairs(12)
    release = train_now(world.settings)
    assert isinstance(release, Release)
    assert (release.parent, world.live()) == (1, 3)
    [_, manifest] = world.manifests()
    ids = {pair_id for some in world.trained(manifest) for pair_id in some}
    assert ids <= {p.pair_id for p in good}
    assert not ids & {p.pair_id for p in bad}


def test_equal_pairs_give_an_equal_model(world: World, tmp_path: Path) -> None:
    world.open()
    pairs = world.pairs(20)
    one = train_now(world.settings)
    other = World(
        world.settings.model_copy(
            update={
                "topic_prefix": f"{world.settings.topic_prefix}other_",
                "data_dir": tmp_path / "other",
            }
        )
    )
    topics_module.ensure(other.settings)
    other.open()
    other.publish(reversed(pairs))
    two = train_now(other.settings)
    assert isinstance(one, Release)
    assert isinstance(two, Release)
    assert one.model.digest == two.model.digest
    assert one.held_out == two.held_out


def test_a_diverged_run_is_released_as_rejected_and_not_repeated(
    world: World, trainer: Callable[[], Trainer]
) -> None:
    world.settings = world.settings.model_copy(update={"train_learning_rate": 1e30})
    world.open()
    world.pairs(30)
    one = Trainer(world.settings, "worker")
    try:
        turn_until(lambda: 2 in world.releases().by_version, one)
    finally:
        one.close()
    release = world.releases().by_version[2]
    assert release.decision == "reject"
    assert "diverged" in release.reason
    assert release.model == world.releases().by_version[1].model
    assert world.live() == 1


def test_a_lost_training_file_does_not_block_the_trainer(
    world: World, trainer: Callable[[], Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.open()
    pairs = world.pairs(30)

    def crash(context: RunContext, manifest: object) -> Release:
        raise RuntimeError("crash")

    with monkeypatch.context() as patched:
        patched.setattr(run, "finish", crash)
        one = trainer()
        with pytest.raises(RestartRequiredError):
            turn_until(lambda: False, one)
        one.close()
    [manifest] = world.manifests()
    (Path(world.settings.registry_url) / manifest.training_file.location).unlink()
    two = trainer()
    turn_until(lambda: 2 in world.releases().by_version, two)
    assert world.releases().by_version[2].decision == "reject"
    world.pairs(30)
    turn_until(lambda: world.live() == 3, two)
    lost = {p.pair_id for p in pairs if not is_held_out(p.query)}
    assert len(lost) == manifest.pairs
    assert lost < set(world.trained(world.manifests()[1])[0])


def test_the_first_release_is_registered_once(world: World) -> None:
    world.open()
    before = world.releases()
    world.open()
    after = world.releases()
    assert after.by_version == before.by_version
    assert after.live == before.live
    encoder = Registry.of(world.settings).load(after.by_version[1].model)
    original = Encoder.load(world.settings.model, max_tokens=32)
    assert (encoder.encode_queries(["amber"]) == original.encode_queries(["amber"])).all()


def test_a_later_reported_outcome_selects_the_pairs(world: World) -> None:
    world.settings = world.settings.model_copy(update={"train_outcome_policy": "correct_only"})
    world.open()
    pairs = world.pairs(30, outcome="incorrect")
    with Publisher(
        "me", bootstrap=world.settings.kafka_bootstrap, topic_prefix=world.settings.topic_prefix
    ) as publisher:
        for pair in pairs[:25]:
            publisher.outcome(pair.trajectory_id, "correct", source="user")
    assert isinstance(train_now(world.settings), Release)
    [manifest] = world.manifests()
    trains = [pair for pair in pairs if not is_held_out(pair.query)]
    reported = {pair.pair_id for pair in pairs[:25]}
    assert world.trained(manifest)[0] == sorted(
        pair.pair_id for pair in trains if pair.pair_id in reported
    )
    assert manifest.left_out["outcome"] == len(trains) - manifest.pairs > 0
    assert sum(span.end - span.start for span in manifest.outcome_ranges) == 25


@pytest.mark.parametrize("decision", ["pending", "reject", "failed", "abandoned"])
def test_no_run_starts_before_the_decision_on_a_candidate_whose_pairs_enter_the_next_run(
    world: World, decision: str
) -> None:
    world.settings = world.settings.model_copy(update={"gate": "auto"})
    world.open()
    first = world.pairs(20)
    one = train_now(world.settings)
    assert isinstance(one, Release)
    assert (one.version, one.decision, one.candidate) == (2, "ship", True)
    assert world.live() == 1
    second = world.pairs(20)
    assert "release 2 is a candidate" in str(train_now(world.settings))
    assert len(world.manifests()) == 1
    releases.write_decision(world.producer, world.settings, a_decision(2, decision))
    two = train_now(world.settings)
    assert isinstance(two, Release)
    assert (two.version, two.parent, two.candidate) == (3, 1, True)
    ids = {p.pair_id for p in (*first, *second) if not is_held_out(p.query)}
    assert set(world.trained(world.manifests()[1])[0]) == ids
    assert releases.promote(world.settings, 3).version == world.live() == 3
    assert isinstance(train_now(world.settings), str), "nothing is new to the promoted release"


def test_a_child_has_a_model_card_and_a_run_without_one_has_none(world: World) -> None:
    world.open()
    world.pairs(20)
    release = train_now(world.settings)
    assert isinstance(release, Release)
    home = Path(world.settings.registry_url) / release.model.location
    text = home.with_name("v2.md").read_text()
    assert f"| digest of the model's files | `{release.model.digest}` |" in text
    assert f"Decision: **{release.decision}**: {release.reason}." in text
    hashes = {content_hash(world.text(str(number))) for number in range(DOCUMENTS)}
    with closing(VectorStore.of(world.settings)) as store:
        found = store.get(release.model.digest, 32, hashes)
    assert found.keys() == hashes, "an index worker must find the vectors of the pool"
    assert release.held_out is not None
    assert release.margin == 1.0
    results = home.with_name("v2.gate.jsonl").read_bytes()
    assert release.results == hashlib.sha256(results).hexdigest()
    *lines, pool = [json.loads(line) for line in results.splitlines()]
    assert len(lines) == release.held_out.queries
    assert len(pool["documents"]) == release.documents == DOCUMENTS
    difference = sum(x["child"]["ndcg_at_10"] - x["parent"]["ndcg_at_10"] for x in lines)
    assert release.held_out.difference == pytest.approx(difference / len(lines), abs=1e-5)

    world.settings = world.settings.model_copy(update={"train_learning_rate": 1e30})
    world.pairs(20)
    failed = train_now(world.settings)
    assert isinstance(failed, Release)
    assert (failed.decision, failed.model) == ("reject", release.model)
    assert home.with_name("v2.md").read_text() == text
    cards = sorted(path.name for path in Path(world.settings.registry_url).rglob("*.md"))
    assert cards == ["v1.md", "v2.md"]


def test_a_recreated_topic_of_manifests_ends_the_training(world: World) -> None:
    world.open()
    world.pairs(10)
    assert isinstance(train_now(world.settings), Release)
    admin = AdminClient(world.settings.kafka())
    admin.delete_topics([world.topics.training_runs])[world.topics.training_runs].result()
    eventually(lambda: world.topics.training_runs not in admin.list_topics(timeout=5).topics)
    topics_module.ensure(world.settings)
    world.pairs(10)
    with pytest.raises(TopicMismatchError, match="the topic was recreated"):
        train_now(world.settings)


def test_an_erasure_makes_the_checkpoint_that_of_another_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training file has other pairs then, so other batches."""
    registry, manifest = Registry(str(tmp_path / "registry"), tmp_path / "cache"), a_manifest(2)
    functions: list[str] = []

    def note(path: Path, function: str) -> None:
        functions.append(function)
        raise InputError("noted")

    monkeypatch.setattr(run, "Checkpoint", note)
    context: Any = SimpleNamespace(registry=registry, mirrors=SimpleNamespace(folder=tmp_path))
    location = manifest.training_file.location
    registry._storage.write(location, b"one\ntwo\n")
    for _ in range(2):
        with pytest.raises(InputError):
            run._child(context, a_release(1, None, "first").model, manifest)
        registry.notes.erase(location, lambda _: b"one\n", "e" * 32)
    assert functions[0] != functions[1]
