"""The trainer as a process: killed, stopped, and its metrics."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from consumers import releases
from retrail_runtime import kafka
from schemas import runs
from schemas.releases import Live
from schemas.settings import Settings
from schemas.topics import Topics
from tests.consumers.training.world import World, small
from tests.trained import NOW, a_manifest, a_release
from tests.waiting import eventually

WORKER = """
from consumers.training.worker import run
from retrail_runtime.process import configure
from schemas.settings import load
configure()
run(load())
"""
ROOT = Path(__file__).parents[3]

Process = subprocess.Popen[bytes]


@pytest.fixture
def world(settings: Settings, topics: Topics, tmp_path: Path) -> World:
    changes = {"kafka_session_timeout": 6.0, "train_min_pairs": 16, "train_batch_size": 1}
    world = World(small(settings, tmp_path, train_epochs=10, **changes))
    world.open()
    return world


@pytest.fixture
def worker(world: World, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def _start(**changes: object) -> Process:
        values = world.settings.model_dump(mode="json", exclude_none=True) | changes
        environment = os.environ | {f"RETRAIL_{k.upper()}": str(v) for k, v in values.items()}
        with (tmp_path / f"worker-{len(started)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", WORKER],
                cwd=ROOT,
                env=environment | {"OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
            )
        started.append(process)
        return process

    yield _start
    for process in started:
        process.kill()
        process.wait()


def steps(world: World, process: Process) -> float:
    """Optimiser steps of a worker, from its /metrics; -1 before it serves them."""
    assert process.poll() is None, "the worker ended"
    port = world.settings.data_dir / "run" / f"train-{process.pid}.metrics"
    if not port.exists() or not port.read_text():
        return -1
    with urllib.request.urlopen(f"http://127.0.0.1:{port.read_text()}/metrics") as page:
        lines = page.read().decode().splitlines()
    [line] = [line for line in lines if line.startswith("retrail_train_steps_total ")]
    return float(line.split()[1])


def test_a_killed_trainer_is_replaced_and_its_run_repeated(
    world: World, worker: Callable[..., Process]
) -> None:
    world.pairs(30)
    first = worker()
    eventually(lambda: steps(world, first) > 5, timeout=120)
    first.kill()
    first.wait()
    [manifest] = world.manifests()
    assert sorted(world.releases().by_version) == [1]
    worker()
    eventually(lambda: world.live() == 2, timeout=120, interval=0.5)
    assert world.manifests() == [manifest]
    assert world.releases().by_version[2].run_id == manifest.run_id


def test_a_trainer_stops_cleanly_in_the_middle_of_a_run(
    world: World, worker: Callable[..., Process], tmp_path: Path
) -> None:
    world.pairs(30)
    process = worker(train_epochs=2000)
    eventually(lambda: steps(world, process) > 5, timeout=120)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    log = (tmp_path / "worker-0.log").read_text()
    assert "Traceback" not in log
    assert "trainer stopped" in [json.loads(x)["event"] for x in log.splitlines() if x[:1] == "{"]
    assert sorted(world.releases().by_version) == [1]


def test_two_workers_started_together_ship_one_release(
    world: World, worker: Callable[..., Process]
) -> None:
    world.pairs(30)
    both = worker(train_epochs=1), worker(train_epochs=1)
    eventually(lambda: world.live() == 2, timeout=240, interval=0.5)
    for process in both:
        process.send_signal(signal.SIGTERM)
    assert [process.wait(timeout=30) for process in both] == [0, 0]
    assert len(world.manifests()) == 1
    assert sorted(world.releases().by_version) == [1, 2]


def test_an_unavailable_broker_ends_the_worker_with_a_remedy(
    world: World, worker: Callable[..., Process], tmp_path: Path
) -> None:
    process = worker(kafka_bootstrap="127.0.0.1:1")
    assert process.wait(timeout=120) == 1
    assert "Kafka does not answer at 127.0.0.1:1" in (tmp_path / "worker-0.log").read_text()


def test_records_of_another_program_do_not_stop_a_trainer(
    world: World, worker: Callable[..., Process], tmp_path: Path
) -> None:
    """Case: {release 2} or {release 3, decision reject} and ``live`` by another program."""
    producer, topics = world.producer, world.topics
    foreign = []
    for made in (a_release(2, 1, "ship"), a_release(3, 1, "reject")):
        releases.write_release(producer, world.settings, made)
        live = Live(version=made.version, why="", changed_at=NOW)
        foreign.append(releases.write_live(producer, world.settings, live))
    foreign += [
        kafka.publish_and_wait(producer, topics.retriever_releases, key=b"live", value=value)
        for value in (b"{", Live(version=9, why="", changed_at=NOW).to_json())
    ]
    manifests = [a_manifest(2, parent=7), a_manifest(2**31 - 1, parent=1)]
    for manifest in manifests:
        key, value = runs.encode(manifest)
        kafka.publish_and_wait(producer, topics.training_runs, key=key, value=value)
    world.pairs(30)
    process = worker(train_epochs=1)
    eventually(lambda: world.live() == 4, timeout=120, interval=0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    assert world.releases().by_version[4].parent == 1
    lines = (tmp_path / "worker-0.log").read_text().splitlines()
    log = [json.loads(line) for line in lines if line.startswith("{")]
    refused = [entry for entry in log if entry["event"].startswith("record refused")]
    found = sorted(e["offset"] for e in refused if e["topic"] == topics.retriever_releases)
    assert found == foreign
    assert [e["offset"] for e in refused if e["topic"] == topics.training_runs] == [0, 1]
    assert all(entry["reason"] and entry["remedy"] for entry in refused)
