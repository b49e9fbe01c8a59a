"""The trainer on real Kafka, with a tiny model."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from consumers import releases
from consumers.training import run, worker
from consumers.training.run import RunContext
from consumers.training.worker import Trainer
from retrail_runtime import health
from retrail_runtime.health import serve_metrics
from schemas.errors import ModelError, RestartRequiredError
from schemas.releases import Release
from tests.consumers.training.world import World, metric, turn_until
from tests.trained import a_decision
from trainer.data.draws import is_held_out
from trainer.registry.registry import Registry


def test_enough_pairs_start_a_run_and_the_next_one_takes_only_new_ones(
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
        assert world.trained(manifest)[0] == expected
        assert sum(span.end - span.start for span in manifest.ranges) == 30
        assert manifest.left_out == {"held out": 30 - len(expected)}
    assert [m.version for m in manifests] == [2, 3]
    assert manifests[0].replayed == 0
    assert manifests[1].replayed == round(0.25 * manifests[1].pairs)
    assert set(world.trained(manifests[1])[1]) <= set(world.trained(manifests[0])[0])
    release = world.releases().by_version[3]
    assert release.decision == "ship"
    assert release.held_out is not None
    assert release.held_out.queries > 0
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

    def crash(context: RunContext, manifest: object) -> Release:
        raise RuntimeError("crash")

    with monkeypatch.context() as patched:
        patched.setattr(run, "finish", crash)
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
def test_a_crash_at_any_later_step_is_recovered(
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
    turn_until(lambda: two.phase == "watching", two)
    assert metric("retrail_train_steps_total") == steps, "trained again"
    assert len(world.manifests()) == 1
    assert sorted(world.releases().by_version) == [1, 2]


def test_a_trainer_waits_for_the_decision_on_its_candidate(
    world: World, trainer: Callable[[], Trainer]
) -> None:
    world.settings = world.settings.model_copy(update={"gate": "auto"})
    world.open()
    world.pairs(30)
    one = trainer()
    turn_until(lambda: 2 in world.releases().by_version, one)
    world.pairs(30)
    turn_until(lambda: metric("retrail_train_pairs_pending") >= 16, one)
    until = time.monotonic() + 2
    turn_until(lambda: time.monotonic() > until, one)
    assert len(world.manifests()) == 1
    releases.write_decision(world.producer, world.settings, a_decision(2, "reject"))
    turn_until(lambda: 3 in world.releases().by_version, one)
    assert world.live() == 1


def test_two_trainers_ship_one_release(world: World, trainer: Callable[[], Trainer]) -> None:
    world.open()
    both = trainer(), trainer()
    world.pairs(30)
    turn_until(lambda: world.live() == 2, *both)
    turn_until(lambda: metric("retrail_train_pairs_pending") == 0, *both)
    assert {one.phase for one in both} == {"watching", "standing by"}
    assert len(world.manifests()) == 1
    assert sorted(world.releases().by_version) == [1, 2]


def test_freshness_follows_releases_and_the_operator(
    world: World, trainer: Callable[[], Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "REFRESH_SECONDS", 0.0)
    began = time.time()

    def newest() -> float:
        return metric("retrail_live_newest_pair_timestamp_seconds")

    world.open()
    one = trainer()
    turn_until(lambda: one.phase == "watching", one)
    assert newest() == 0
    world.pairs(30)
    turn_until(lambda: world.live() == 2 and newest() > 0, one)
    assert began - 1 < newest() < time.time() + 1
    releases.promote(world.settings, 1)
    turn_until(lambda: newest() == 0, one)


def test_a_stand_by_takes_over(world: World, trainer: Callable[[], Trainer]) -> None:
    world.open()
    first, second = trainer(), trainer()
    turn_until(lambda: first.phase == "watching", first, second)
    first.close()
    world.pairs(30)
    turn_until(lambda: world.live() == 2, second)


def test_a_stuck_run_changes_the_pages_of_health(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "SLOW_SECONDS", 2.0)
    monkeypatch.setattr(health, "STUCK_SECONDS", 6.0)
    world.open()
    world.pairs(30)
    resume, training = threading.Event(), threading.Event()

    def hang(_: object) -> None:
        training.set()
        resume.wait()

    one = Trainer(world.settings, "worker", on_step=hang)
    port = serve_metrics(world.settings, "train", one.health)

    def pages() -> tuple[int, int]:
        urls = (f"http://127.0.0.1:{port}/{page}" for page in ("healthz", "readyz"))
        found = [httpx.get(url).status_code for url in urls]
        return found[0], found[1]

    try:
        turn_until(lambda: one.phase == "watching" or training.is_set(), one)
        turn_until(training.is_set, one)
        turn_until(lambda: pages() == (200, 503), one)
        turn_until(lambda: pages() == (503, 503), one)
        assert "retrail_worker_alive 0.0" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
        resume.set()
        turn_until(lambda: world.live() == 2 and pages() == (200, 200), one)
    finally:
        resume.set()
        one.close()


def test_mirrors_are_updated_while_a_run_trains(world: World) -> None:
    world.open()
    world.pairs(30)
    resume = threading.Event()
    one = Trainer(world.settings, "worker", on_step=lambda step: resume.wait() and None)
    try:
        turn_until(lambda: one.phase == "working", one)
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


def test_a_trainer_waits_for_the_first_release(
    world: World, trainer: Callable[[], Trainer]
) -> None:
    world.settings = world.settings.model_copy(update={"gate": "auto"})
    world.pairs(30)
    one = trainer()
    turn_until(lambda: one.phase == "waiting", one)
    world.open()
    turn_until(lambda: 2 in world.releases().by_version, one)


def test_a_trainer_that_decides_alone_registers_the_first_release(
    world: World, trainer: Callable[[], Trainer]
) -> None:
    one = trainer()
    turn_until(lambda: one.phase == "watching", one)
    assert world.live() == 1
    world.open()
    world.pairs(30)
    turn_until(lambda: world.live() == 2, one)
    release = world.releases().by_version[2]
    assert (release.candidate, release.decision) == (False, "ship")
    assert release.reason.endswith("; the trainer decided alone, on 24 documents")


def test_untrainable_pairs_start_no_run_until_others_arrive(
    world: World, trainer: Callable[[], Trainer]
) -> None:
    world.open()
    # The gate could compare a child, but no pair trains: all others are about unknown documents.
    world.publish([pair for pair in (world.pair() for _ in range(40)) if is_held_out(pair.query)])
    world.pairs(40, positive="nobody knows")
    one = trainer()
    empty = metric("retrail_train_runs_total", result="empty")
    turn_until(lambda: metric("retrail_train_runs_total", result="empty") == empty + 1, one)
    assert metric("retrail_train_pairs_pending") > 16
    turn_until(lambda: metric("retrail_train_pairs_pending") == 0, one)
    assert one.phase == "watching"
    assert metric("retrail_train_runs_total", result="empty") == empty + 1, "tried again"
    assert world.manifests() == []
    world.pairs(30)
    turn_until(lambda: world.live() == 2, one)


def test_a_parent_missing_from_the_registry_ends_the_trainer(
    world: World, trainer: Callable[[], Trainer]
) -> None:
    world.open()
    parent = world.releases().by_version[1]
    (Path(world.settings.registry_url) / f"{parent.model.location}.json").unlink()
    world.pairs(30)
    one = trainer()
    with pytest.raises(ModelError, match=f"no model {parent.model.location}"):
        turn_until(lambda: False, one)
