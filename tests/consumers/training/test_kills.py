"""A trainer killed with SIGKILL after each step of a run, on real Kafka.

Whatever the step, the run is repeated: never half-shipped, no pair lost, none new twice.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from consumers.training.reproduce import reproduce
from schemas.pairs import LabelledPair
from schemas.runs import RunManifest
from schemas.settings import Settings
from schemas.topics import Topics
from tests.consumers.training.killed_trainer import AFTER, work
from tests.consumers.training.world import World, small
from tests.torch_threads import torch_threads
from tests.waiting import eventually
from trainer.data.draws import is_held_out
from trainer.registry.registry import Registry

Start = Callable[[str | None], BaseProcess]

TIMEOUT = 120.0

pytestmark = pytest.mark.faults


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Use the number of threads of the killed trainers, so that repeated runs are equal."""
    with torch_threads(1):
        yield


@pytest.fixture
def world(settings: Settings, topics: Topics, tmp_path: Path) -> World:
    # No caps: with so few pairs one document may have an eighth of them.
    changes = {
        "train_cap_document": 1.0,
        "kafka_session_timeout": 1.5,
        "train_min_pairs": 16,
        "train_batch_size": 8,
    }
    world = World(small(settings, tmp_path, **changes))
    world.open()
    return world


@pytest.fixture
def start(world: World) -> Iterator[Start]:
    """A function that starts a trainer, forked from a server that has made the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.consumers.training.killed_trainer"])
    started: list[BaseProcess] = []

    def _start(after: str | None) -> BaseProcess:
        process = context.Process(target=work, args=(world.settings, after))
        process.start()
        started.append(process)
        return process

    yield _start
    for process in started:
        process.kill()
        process.join()


def kill_after(step: str, start: Start) -> None:
    """Run a trainer until it kills itself."""
    process = start(step)
    process.join(TIMEOUT)
    assert process.exitcode == -signal.SIGKILL


def trainable(pairs: list[LabelledPair]) -> list[str]:
    return sorted(pair.pair_id for pair in pairs if not is_held_out(pair.query))


def taken(world: World, manifests: list[RunManifest]) -> list[str]:
    """New pairs of all runs, each as often as it is new."""
    return sorted(pair_id for manifest in manifests for pair_id in world.trained(manifest)[0])


def check(world: World) -> None:
    """Assert the invariants that hold at any time."""
    manifests = world.manifests()
    runs = {manifest.version: manifest.run_id for manifest in manifests}
    assert len(set(runs.values())) == len(runs) == len(manifests)
    found = world.releases()
    assert sorted(found.by_version) == list(range(1, 1 + len(found.by_version)))
    assert found.live is not None
    for version, release in found.by_version.items():
        assert (release.run_id is None) == (version == 1)
        assert release.run_id is None or runs[version] == release.run_id
        Registry.of(world.settings).open(release.model)
    assert found.by_version[found.live.version].decision in ("first", "ship")


def all_learned(world: World, pairs: list[LabelledPair]) -> None:
    """Wait until the live lineage was trained on all pairs, each of them new exactly once."""

    def learned() -> bool:
        manifests, found = world.manifests(), world.releases()
        newest = 1 + len(manifests)
        return (
            taken(world, manifests) == trainable(pairs)
            and found.live is not None
            and found.live.version == len(found.by_version) == newest
        )

    eventually(learned, TIMEOUT, "release of all pairs", interval=0.3)
    check(world)
    for manifest in world.manifests():
        reproduced = reproduce(world.settings, manifest.run_id)
        assert reproduced is not None
        assert reproduced.equal, "a repeated run gave another model than an undisturbed one"


def test_a_trainer_killed_after_every_step_loses_and_duplicates_nothing(
    world: World, start: Start
) -> None:
    pairs = world.pairs(30)
    for step in AFTER:
        kill_after(step, start)
        check(world)
        number = int(step[0])
        assert len(world.manifests()) == (number >= 4)
        assert len(world.releases().by_version) == 1 + (number >= 8)
        assert world.live() == 1 + (number >= 9)
    pairs += world.pairs(30)
    start(None)
    all_learned(world, pairs)
    assert len(world.manifests()) == 2


@pytest.mark.parametrize("step", AFTER)
def test_pairs_that_arrive_during_a_takeover_train_once(
    world: World, start: Start, step: str
) -> None:
    pairs = world.pairs(30)
    both = start(step), start(step)
    for dead in (1, 2):
        eventually(
            lambda: sum(not p.is_alive() for p in both) == dead,  # noqa: B023
            TIMEOUT,
            "death of a trainer",
        )
        check(world)
        # Enough for another run, although some are held out.
        pairs += world.pairs(30)
    assert [process.exitcode for process in both] == [-signal.SIGKILL] * 2
    start(None)
    all_learned(world, pairs)
