"""One run with what is on the topics now."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from consumers.training import worker as worker_module
from consumers.training.worker import Trainer, train_now
from retrail_runtime.lease import Lease, has_members
from schemas.errors import InputError
from schemas.settings import Settings
from tests.consumers.training.world import World, turn_until


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
        assert asked.result() is None, "nothing was new behind the worker's run"
    finally:
        resume.set()
        worker.close()
    assert all(answers)
    assert len(world.manifests()) == 1
    assert world.live() == 2


def test_a_run_is_interrupted_by_retrail_train_and_repeated_by_it(world: World) -> None:
    world.open()
    world.pairs(30)
    slow = Trainer(world.settings, "worker", on_step=lambda step: time.sleep(0.2))
    try:
        turn_until(lambda: slow.phase == "working", slow)
        with closing(Trainer(world.settings, "now")) as now:
            turn_until(lambda: now.finished, slow, now)
            assert slow.phase == "standing by"
    finally:
        slow.close()
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


def test_a_lease_that_is_lost_and_comes_back_at_once_ends_nothing(
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
    assert release is not None
    assert len(world.manifests()) == 1
    assert world.live() == release.version == 2
