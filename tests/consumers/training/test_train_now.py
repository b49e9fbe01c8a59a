"""One run on the current records: ``retrail train``."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from consumers.training import worker as worker_module
from consumers.training.worker import Trainer, train_now
from retrail import Publisher
from retrail_runtime.kafka.lease import Lease, has_members
from schemas.errors import InputError
from schemas.releases import Release
from schemas.settings import Settings
from tests.consumers.training.world import World, metric, turn_until
from trainer.data.draws import is_held_out


def test_train_now_makes_one_run(world: World) -> None:
    world.open()
    world.pairs(10)
    steps: list[int] = []
    release = train_now(world.settings, on_step=lambda step: steps.append(step.step))
    assert isinstance(release, Release)
    assert (release.version, release.parent, release.decision) == (2, 1, "ship")
    assert steps == list(range(1, len(steps) + 1))
    assert world.live() == 2
    assert isinstance(train_now(world.settings), str), "nothing is new"
    world.pairs(10)
    again = train_now(world.settings)
    assert isinstance(again, Release)
    assert again.version == 3


def test_train_now_waits_for_the_current_run_of_a_worker(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.open()
    world.pairs(30)
    resume, answers = threading.Event(), list[bool]()

    def asked_for_members(settings: Settings, group: str) -> bool:
        answers.append(has_members(settings, group))
        return answers[-1]

    monkeypatch.setattr(worker_module, "has_members", asked_for_members)
    worker = Trainer(world.settings, "worker", on_step=lambda step: resume.wait() and None)
    try:
        turn_until(lambda: worker.phase == "working" and world.manifests(), worker)
        with ThreadPoolExecutor() as threads:
            asked = threads.submit(train_now, world.settings)
            turn_until(lambda: len(answers) > 1, worker)
            assert worker.phase == "working"
            resume.set()
            turn_until(asked.done, worker)
        assert "no new pairs" in asked.result(), "nothing was new behind the worker's run"
    finally:
        resume.set()
        worker.close()
    assert all(answers)
    assert len(world.manifests()) == 1
    assert world.live() == 2


def test_retrail_train_interrupts_a_run_and_completes_it(world: World) -> None:
    world.open()
    world.pairs(30)
    slow = Trainer(world.settings, "worker", on_step=lambda step: time.sleep(0.2))
    try:
        turn_until(lambda: slow.phase == "working", slow)
        with closing(Trainer(world.settings, "now")) as now:
            turn_until(lambda: now.result is not None, slow, now)
            assert slow.phase == "standing by"
    finally:
        slow.close()
    assert len(world.manifests()) == 1
    assert world.live() == 2


def test_train_now_without_pairs(world: World) -> None:
    world.open()
    assert isinstance(train_now(world.settings), str)
    world.pairs(5, verdict="irrelevant")
    assert isinstance(train_now(world.settings), str)
    assert world.manifests() == []


def test_a_certain_hold_is_reported_first_without_encoding(world: World) -> None:
    """Case M1: ten usable held-out queries where the gate wants a hundred."""
    world.settings = world.settings.model_copy(update={"gate_min_queries": 100})
    world.open()
    pairs = world.pairs(20)
    usable = sum(is_held_out(pair.query) for pair in pairs)
    with closing(Trainer(world.settings, "worker")) as worker, capture_logs() as logged:
        turn_until(lambda: any(entry["event"] == "no run" for entry in logged), worker)
        turn_until(lambda: worker.phase == "watching", worker)
    [counted] = [entry for entry in logged if entry["event"] == "held-out queries counted"]
    assert (counted["usable"], counted["wanted"], counted["can_ship"]) == (usable, 100, False)
    assert world.manifests() == [], "a worker waits for more queries"

    encoded = metric("retrail_encoder_texts_total", kind="document")
    release = train_now(world.settings)
    assert isinstance(release, Release)
    assert (release.decision, release.held_out) == ("hold", None)
    assert f"there are {usable} usable held-out queries, and the gate needs 100" in release.reason
    assert metric("retrail_encoder_texts_total", kind="document") == encoded


def test_a_reported_wrong_answer_takes_its_pairs_out_of_the_comparison(world: World) -> None:
    world.open()
    pairs = [pair for pair in world.pairs(40) if is_held_out(pair.query)]
    with Publisher(
        "user",
        bootstrap=world.settings.kafka_bootstrap,
        topic_prefix=world.settings.topic_prefix,
    ) as publisher:
        publisher.outcome(pairs[0].trajectory_id, "incorrect")
    release = train_now(world.settings)
    assert isinstance(release, Release)
    assert release.held_out is not None
    assert release.held_out.queries == len(pairs) - 1 > 0


def test_reasons_why_pairs_do_not_train_have_a_remedy(world: World) -> None:
    """Case M2: most pairs are about documents that are not loaded."""
    world.open()
    pairs = world.pairs(9, positive="not loaded")
    unknown = sum(not is_held_out(pair.query) for pair in pairs)
    world.pairs(3, verdict="irrelevant")
    why = train_now(world.settings)
    assert isinstance(why, str)
    assert why.startswith("of 12 new pairs 0 can train")
    assert f"{unknown} are about documents that are not loaded (`retrail documents load" in why
    assert world.manifests() == []


def test_train_now_without_a_first_release(world: World) -> None:
    world.settings = world.settings.model_copy(update={"gate": "auto"})
    with pytest.raises(InputError, match="retrail worker index"):
        train_now(world.settings)


def test_a_run_survives_a_lease_that_is_lost_and_regained(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.open()
    world.pairs(20)
    training, lost = threading.Event(), threading.Event()
    poll = Lease.poll

    def flickering(lease: Lease, seconds: float) -> bool:
        held = poll(lease, seconds)
        if training.is_set() and not lost.is_set():
            lost.set()
            return False
        return held

    def on_step(_: object) -> None:
        training.set()
        lost.wait(30)

    monkeypatch.setattr(Lease, "poll", flickering)
    release = train_now(world.settings, on_step=on_step)
    assert isinstance(release, Release)
    assert len(world.manifests()) == 1
    assert world.live() == release.version == 2
