"""The trainer on real Kafka, with a model small enough to train in a moment."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from consumers.training.ownership import Ownership
from consumers.training.repeat import repeat

from consumers import releases
from consumers.training import ownership, training_run, training_worker
from consumers.training.run import Bench
from consumers.training.worker import Trainer, train_now
from deploy import topics as topics_module
from retrail import Publisher
from retrail_runtime import kafka
from schemas.errors import InputError, ModelError, RestartRequiredError
from schemas.releases import Release
from schemas.settings import Settings
from schemas.topics import Topics
from tests.consumers.training.world import World, metric, small
from trainer.data.draws import is_held_out
from trainer.model.encoder import Encoder
from trainer.registry.registry import Registry

TIMEOUT = 60.0


@pytest.fixture
def world(settings: Settings, topics: Topics, tmp_path: Path) -> World:
    changes = {"kafka_session_timeout": 6.0, "train_min_pairs": 16, "train_batch_size": 4}
    return World(small(settings, tmp_path, **changes))


@pytest.fixture
def trainer(world: World) -> Iterator[Callable[[], Trainer]]:
    started: list[Trainer] = []

    def _start() -> Trainer:
        started.append(Trainer(world.settings, "worker"))
        return started[-1]

    yield _start
    for one in started:
        one.close()


def turn_until(condition: Callable[[], object], *trainers: Trainer) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        for one in trainers:
            one.turn()


def test_count_starts_a_run_and_the_next_one_takes_only_new_pairs(
    world: World, trainer: Callable[[], Trainer]
) -> None:
    world.open()
    first = world.pairs(30)
    one = trainer()
    turn_until(lambda: world.live() == 2, one)
    second = world.pairs(30)
    turn_until(lambda: world.live() == 3, one)
    manifests = world.manifests()
    assert [m.parent for m in manifests] == [1, 2]
    for manifest, pairs in zip(manifests, (first, second), strict=True):
        expected = sorted(p.pair_id for p in pairs if not is_held_out(p.query))
        assert list(manifest.pair_ids) == expected
        assert sum(span.end - span.start for span in manifest.ranges) == 30
        assert manifest.left_out == {"held out": 30 - len(expected)}
    assert manifests[0].replayed == ()
    assert len(manifests[1].replayed) == round(0.25 * len(manifests[1].pair_ids))
    assert set(manifests[1].replayed) <= set(manifests[0].pair_ids)
    release = world.releases().by_version[3]
    assert release.decision == "ship"
    assert release.queries > 0
    assert release.child_metrics is not None
    assert Registry.of(world.settings).load(release.model).dimension == 32


def test_too_few_pairs_start_a_run_by_age(world: World, trainer: Callable[[], Trainer]) -> None:
    world.settings = world.settings.model_copy(
        update={"train_min_pairs": 1000, "train_max_age_seconds": 1.0}
    )
    world.open()
    world.pairs(20)
    one = Trainer(world.settings, "worker")
    try:
        turn_until(lambda: world.live() == 2, one)
    finally:
        one.close()


def test_a_crash_after_the_manifest_repeats_the_same_run(
    world: World, trainer: Callable[[], Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.open()
    world.pairs(30)

    def crash(bench: Bench, run: object) -> Release:
        raise RuntimeError("crash")

    with monkeypatch.context() as patched:
        patched.setattr(training_run, "finish", crash)
        one = trainer()
        with pytest.raises(RestartRequiredError, match="crash"):
            turn_until(lambda: False, one)
        one.close()
    assert world.live() == 1
    [manifest] = world.manifests()
    two = trainer()
    turn_until(lambda: world.live() == 2, two)
    assert world.manifests() == [manifest]
    assert world.releases().by_version[2].run_id == manifest.run_id


@pytest.mark.parametrize("step", ["publish", "write_release", "write_live"])
def test_a_crash_at_any_later_step_is_made_good(
    world: World, trainer: Callable[[], Trainer], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    world.open()
    world.pairs(30)
    where = Registry if step == "publish" else releases
    genuine = getattr(where, step)

    def crash_after(*args: object) -> object:
        genuine(*args)
        raise RuntimeError("crash")

    with monkeypatch.context() as patched:
        patched.setattr(where, step, crash_after)
        one = trainer()
        with pytest.raises(RestartRequiredError, match="crash"):
            turn_until(lambda: False, one)
        one.close()
    steps = metric("retrail_train_steps_total")
    two = trainer()
    turn_until(lambda: world.live() == 2, two)
    turn_until(lambda: two._phase == "watching", two)
    assert metric("retrail_train_steps_total") == steps, "trained again"
    assert len(world.manifests()) == 1
    assert sorted(world.releases().by_version) == [1, 2]


def test_of_two_trainers_one_ships_one_release(
    world: World, trainer: Callable[[], Trainer]
) -> None:
    world.open()
    both = trainer(), trainer()
    world.pairs(30)
    turn_until(lambda: world.live() == 2, *both)
    deadline = time.monotonic() + 3
    turn_until(lambda: time.monotonic() > deadline, *both)
    assert len(world.manifests()) == 1
    assert sorted(world.releases().by_version) == [1, 2]


def test_a_stand_by_takes_over(world: World, trainer: Callable[[], Trainer]) -> None:
    world.open()
    first, second = trainer(), trainer()
    turn_until(lambda: first._phase == "watching", first, second)
    first.close()
    world.pairs(30)
    turn_until(lambda: world.live() == 2, second)


def test_watching_goes_on_while_a_run_trains(world: World) -> None:
    world.open()
    world.pairs(30)
    resume = threading.Event()
    one = Trainer(world.settings, "worker", on_step=lambda step: resume.wait() and None)
    try:
        turn_until(lambda: one._phase == "working", one)
        seen = metric("retrail_train_pairs_read_total", verdict="relevant")
        world.pairs(50)
        turn_until(
            lambda: metric("retrail_train_pairs_read_total", verdict="relevant") == seen + 50, one
        )
        assert world.live() == 1
        resume.set()
        turn_until(lambda: world.live() == 3, one)
    finally:
        resume.set()
        one.close()


def test_a_run_is_interrupted_by_retrail_train_and_repeated_by_it(world: World) -> None:
    world.open()
    world.pairs(30)
    slow = Trainer(world.settings, "worker", on_step=lambda step: time.sleep(0.2))
    try:
        turn_until(lambda: slow._phase == "working", slow)
        with closing(Trainer(world.settings, "now")) as now:
            turn_until(lambda: now.finished, slow, now)
            assert slow._phase == "standing by"
    finally:
        slow.close()
    assert len(world.manifests()) == 1
    assert world.live() == 2


def test_a_trainer_waits_for_the_first_release(
    world: World, trainer: Callable[[], Trainer]
) -> None:
    world.pairs(30)
    one = trainer()
    turn_until(lambda: one._phase == "waiting", one)
    world.open()
    turn_until(lambda: world.live() == 2, one)


def test_bad_records_are_passed_over(world: World, trainer: Callable[[], Trainer]) -> None:
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
    assert set(manifest.pair_ids) == {p.pair_id for p in good if not is_held_out(p.query)}
    assert not set(manifest.pair_ids) & {p.pair_id for p in (*unknown, *irrelevant)}
    assert manifest.left_out == {
        "held out": sum(is_held_out(p.query) for p in good),
        "irrelevant": 3,
        "no text": 2,
        "repeated": 4,
    }
    assert metric("retrail_consumer_invalid_records_total", stage="pairs") == bad + 2


def test_pairs_that_cannot_train_start_no_run_until_others_come(
    world: World, trainer: Callable[[], Trainer]
) -> None:
    world.open()
    world.pairs(40, positive="nobody knows")
    one = trainer()
    empty = metric("retrail_train_runs_total", result="empty")
    turn_until(lambda: metric("retrail_train_runs_total", result="empty") == empty + 1, one)
    deadline = time.monotonic() + 2
    turn_until(lambda: time.monotonic() > deadline, one)
    assert metric("retrail_train_runs_total", result="empty") == empty + 1, "tried again"
    assert world.manifests() == []
    world.pairs(30)
    turn_until(lambda: world.live() == 2, one)


def test_a_parent_that_is_gone_from_the_registry_ends_the_trainer(
    world: World, trainer: Callable[[], Trainer]
) -> None:
    world.open()
    parent = world.releases().by_version[1]
    (Path(world.settings.registry_url) / f"{parent.model.location}.json").unlink()
    world.pairs(30)
    one = trainer()
    with pytest.raises(ModelError, match=f"no model {parent.model.location}"):
        turn_until(lambda: False, one)


def test_train_now_makes_one_run(world: World) -> None:
    world.open()
    world.pairs(10)
    steps: list[int] = []
    release = train_now(world.settings, on_step=lambda step: steps.append(step.step))
    assert release is not None
    assert (release.version, release.parent, release.decision) == (2, 1, "ship")
    assert steps == list(range(1, len(steps) + 1))
    assert world.live() == 2
    assert train_now(world.settings) is None, "nothing is new"
    world.pairs(10)
    again = train_now(world.settings)
    assert again is not None
    assert again.version == 3


def test_train_now_waits_for_the_run_that_a_worker_has_in_hand(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.open()
    world.pairs(30)
    resume, answers = threading.Event(), list[bool]()

    def someone_trains(settings: Settings) -> bool:
        answers.append(ownership.someone_trains(settings))
        return answers[-1]

    monkeypatch.setattr(training_worker, "someone_trains", someone_trains)
    worker = Trainer(world.settings, "worker", on_step=lambda step: resume.wait() and None)
    try:
        turn_until(lambda: worker._phase == "working" and world.manifests(), worker)
        with ThreadPoolExecutor() as threads:
            asked = threads.submit(train_now, world.settings)
            turn_until(lambda: len(answers) > 1, worker)
            assert worker._phase == "working"
            resume.set()
            turn_until(asked.done, worker)
        assert asked.result() is None, "nothing was new behind the worker's run"
    finally:
        resume.set()
        worker.close()
    assert all(answers)
    assert len(world.manifests()) == 1
    assert world.live() == 2


def test_train_now_without_pairs(world: World) -> None:
    world.open()
    assert train_now(world.settings) is None
    world.pairs(5, verdict="irrelevant")
    assert train_now(world.settings) is None
    assert world.manifests() == []


def test_train_now_without_a_first_release(world: World) -> None:
    with pytest.raises(InputError, match="retrail worker index"):
        train_now(world.settings)


def test_a_rolled_back_run_is_not_learned_from_again(world: World) -> None:
    world.open()
    bad = world.pairs(12)
    train_now(world.settings)
    live = releases.rollback(world.settings)
    assert (live.version, live.quarantined) == (1, (world.manifests()[0].run_id,))
    good = world.pairs(12)
    release = train_now(world.settings)
    assert release is not None
    assert (release.parent, world.live()) == (1, 3)
    [_, manifest] = world.manifests()
    ids = {*manifest.pair_ids, *manifest.replayed}
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
    assert one is not None
    assert two is not None
    assert one.model.digest == two.model.digest
    assert one.child_metrics == two.child_metrics


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
    world.pairs(30)

    def crash(bench: Bench, run: object) -> Release:
        raise RuntimeError("crash")

    with monkeypatch.context() as patched:
        patched.setattr(training_run, "finish", crash)
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
    assert set(manifest.pair_ids) < set(world.manifests()[1].pair_ids)


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


def test_an_outcome_that_became_known_later_decides_what_trains(world: World) -> None:
    world.settings = world.settings.model_copy(update={"train_outcome_policy": "correct_only"})
    world.open()
    pairs = world.pairs(30, outcome="incorrect")
    with Publisher(
        "me", bootstrap=world.settings.kafka_bootstrap, topic_prefix=world.settings.topic_prefix
    ) as publisher:
        for pair in pairs[:25]:
            publisher.outcome(pair.trajectory_id, "correct", source="user")
    assert train_now(world.settings) is not None
    [manifest] = world.manifests()
    trains = [pair for pair in pairs if not is_held_out(pair.query)]
    reported = {pair.pair_id for pair in pairs[:25]}
    assert list(manifest.pair_ids) == sorted(
        pair.pair_id for pair in trains if pair.pair_id in reported
    )
    assert manifest.left_out["outcome"] == len(trains) - len(manifest.pair_ids) > 0
    assert sum(span.end - span.start for span in manifest.outcome_ranges) == 25


def test_where_a_person_must_approve_a_child_waits_and_its_pairs_enter_the_next_run(
    world: World,
) -> None:
    world.settings = world.settings.model_copy(update={"gate": "manual"})
    world.open()
    first = world.pairs(20)
    one = train_now(world.settings)
    assert one is not None
    assert (one.version, one.decision) == (2, "pending")
    assert one.reason.endswith("it waits for `retrail promote`")
    assert world.live() == 1
    second = world.pairs(20)
    two = train_now(world.settings)
    assert two is not None
    assert (two.version, two.parent, two.decision) == (3, 1, "pending")
    ids = {p.pair_id for p in (*first, *second) if not is_held_out(p.query)}
    assert set(world.manifests()[1].pair_ids) == ids
    assert releases.promote(world.settings, 3).version == world.live() == 3
    assert train_now(world.settings) is None, "nothing is new to the promoted release"


def test_a_model_card_lies_beside_a_child_and_none_where_no_child_came(world: World) -> None:
    world.open()
    world.pairs(20)
    release = train_now(world.settings)
    assert release is not None
    home = Path(world.settings.registry_url) / release.model.location
    text = home.with_name("v2.md").read_text()
    assert f"| digest of the model's files | `{release.model.digest}` |" in text
    assert f"Decision: **{release.decision}**: {release.reason}." in text
    assert release.interval is not None
    assert release.margin == 1.0

    world.settings = world.settings.model_copy(update={"train_learning_rate": 1e30})
    world.pairs(20)
    failed = train_now(world.settings)
    assert failed is not None
    assert (failed.decision, failed.model) == ("reject", release.model)
    assert home.with_name("v2.md").read_text() == text
    cards = sorted(path.name for path in Path(world.settings.registry_url).rglob("*.md"))
    assert cards == ["v1.md", "v2.md"]


def test_a_run_repeated_from_its_manifest_gives_the_released_model_and_writes_nothing(
    world: World,
) -> None:
    world.open()
    world.pairs(20)
    release = train_now(world.settings)
    assert release is not None
    world.pairs(20)
    assert train_now(world.settings) is not None
    before = world.manifests(), world.releases()
    assert release.run_id is not None
    for wanted in (release.run_id, release.run_id[:8]):
        repeated = repeat(world.settings, wanted)
        assert (repeated.released, repeated.equal) == (release, True)
        assert Encoder.load(repeated.folder).dimension == 32
    assert (world.manifests(), world.releases()) == before
    with pytest.raises(InputError, match=f"no run 'f00'.*{release.run_id} .release 2"):
        repeat(world.settings, "f00")


def test_a_run_without_its_training_file_cannot_be_repeated(world: World) -> None:
    world.open()
    world.pairs(20)
    release = train_now(world.settings)
    [manifest] = world.manifests()
    (Path(world.settings.registry_url) / manifest.training_file.location).unlink()
    with pytest.raises(InputError, match="cannot be repeated: Cannot read the training file"):
        repeat(world.settings, manifest.run_id)
    assert world.releases().by_version[2] == release


def test_a_partition_that_is_lost_and_comes_back_at_once_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.open()
    world.pairs(20)
    training, lost = threading.Event(), threading.Event()
    poll = Ownership.poll

    def flickering(ownership: Ownership, seconds: float) -> bool:
        owned = poll(ownership, seconds)
        if training.is_set() and not lost.is_set():
            lost.set()
            return False
        return owned

    def on_step(_: object) -> None:
        training.set()
        lost.wait(30)

    monkeypatch.setattr(Ownership, "poll", flickering)
    release = train_now(world.settings, on_step=on_step)
    assert release is not None
    assert len(world.manifests()) == 1
    assert world.live() == release.version == 2
