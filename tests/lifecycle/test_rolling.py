"""Replacing every process of an installation under load: by the same version, and by a newer one.

Every event that was acknowledged is mined exactly as by an offline fold, and searches go on.
"""

import itertools
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from deploy import topics as topics_module
from deploy.stack import ROLES
from tests.lifecycle.fleet import (
    READERS_FIRST,
    ROOT,
    Installation,
    Process,
    Searches,
    load_documents,
    searches_published,
    searching,
    settings_of,
    until_live_serves,
)
from tests.streams.campaign import Clock, publishing
from tests.streams.topics import assert_judged_completely, pairs_of, send
from tests.streams.trajectories import mined_offline
from tests.waiting import eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]

TWICE = ("judge", "mine", "index")
RATE = 60
"""Events a second."""
FIELD = {"schema_version": "1.1", "confidence": 0.75}
"""What a newer client adds to an event: an optional field, and a newer minor version."""


@pytest.fixture
def fleet(kafka: str, milvus: str, tmp_path: Path) -> Iterator[Installation]:
    """An installation with topics and documents, none of whose processes outlives the test."""
    settings = settings_of(tmp_path, kafka, milvus, f"l{secrets.token_hex(4)}")
    topics_module.ensure(settings)
    load_documents(settings)
    found = Installation(settings, tmp_path)
    yield found
    found.kill_all()


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """The source tree before the images were added."""
    path = "deploy/Containerfile"
    log = ["git", "log", "--format=%H", "--diff-filter=A", "--", path]
    found = subprocess.run(log, cwd=ROOT, capture_output=True, text=True)
    added = found.stdout.split()
    if found.returncode or not added:
        pytest.skip(f"needs the history of this repository: which commit added {path}?")
    folder = tmp_path / "older"
    folder.mkdir()
    archive = subprocess.run(
        ["git", "archive", f"{added[-1]}^"], cwd=ROOT, capture_output=True, check=True
    )
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


def started(fleet: Installation, source: Path) -> list[Process]:
    """Two workers of each role of ``TWICE``, a trainer and a server, once all are ready."""
    workers = [fleet.start(role, source) for role in (*ROLES, *TWICE)]
    until_live_serves(fleet.settings)
    for worker in workers:
        fleet.until_ready(worker)
    return [*workers, fleet.started("serve", source)]


def readers_first(workers: list[Process]) -> list[Process]:
    return sorted(workers, key=lambda worker: READERS_FIRST.index(worker.role))


def more_pairs(fleet: Installation, number: int) -> None:
    """Wait for some pairs more than there are."""
    wanted = len(pairs_of(fleet.settings)) + number
    eventually(lambda: len(pairs_of(fleet.settings)) >= wanted, 120, "more pairs", interval=0.5)


def finish(fleet: Installation, clock: Clock, events: list, searches: Searches) -> None:
    """Compare the pairs, the judged events and the searches with what was acknowledged."""
    settings = fleet.settings
    assert searches.failures == []
    assert until_live_serves(settings) > 1, "no release while the processes were replaced"
    clock.close(fleet, mined_offline(events, settings), len(events))
    assert_judged_completely(settings)
    published = searches_published(settings, {one.trajectory_id for one in events})
    assert searches.answered <= published <= searches.answered + searches.broken


def test_rolling_restart_of_every_role_under_load(fleet: Installation) -> None:
    clock = Clock("rolling restart of every role")
    workers = started(fleet, ROOT)
    with searching(fleet) as searches, publishing(fleet, RATE) as events:
        more_pairs(fleet, 50)
        for worker in readers_first(workers):
            fleet.replace(worker)
            clock.faults[f"{worker.role} replaced"] += 1
        more_pairs(fleet, 50)
    finish(fleet, clock, events, searches)


def test_upgrade_with_both_versions_for_a_while(fleet: Installation, older: Path) -> None:
    """Some events have a field that neither version knows."""
    clock = Clock("upgrade from the version before the images")
    count = itertools.count()
    command = [sys.executable, "-P", "-c", "import retrail_cli; print(retrail_cli.__file__)"]
    shown = subprocess.run(command, env={"PYTHONPATH": str(older)}, capture_output=True, text=True)
    assert Path(shown.stdout.strip()).is_relative_to(older), "the older version is run"

    def write(some: list) -> None:
        records = []
        for event in some:
            value = event.to_json()
            if next(count) % 3 == 0:
                value = orjson.dumps(orjson.loads(value) | FIELD)
            records.append((event.trajectory_id.encode(), value, []))
        send(fleet.settings, records)

    workers = readers_first(started(fleet, older))
    first = [next(one for one in workers if one.role == role) for role in READERS_FIRST]
    with searching(fleet) as searches, publishing(fleet, RATE, write=write) as events:
        more_pairs(fleet, 50)
        for part in (first, [one for one in workers if one not in first]):
            for worker in part:
                fleet.replace(worker)
                clock.faults[f"{worker.role} upgraded"] += 1
            more_pairs(fleet, 100)
    finish(fleet, clock, events, searches)
