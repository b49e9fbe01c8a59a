"""An erasure from end to end: topics, local copies, training files, gate results, reproduction."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from consumers import erasing
from consumers.training.mirrors import Mirrors
from consumers.training.reproduce import verify
from consumers.training.worker import train_now
from deploy import environment
from retrail_runtime import kafka
from schemas import pairs
from schemas.errors import ConfigurationError, InputError
from schemas.events import Agent, OutcomeReport
from schemas.runs import RunManifest
from schemas.settings import Settings
from schemas.topics import Topics
from tests.consumers.training.world import World, small
from tests.streams.judged_log import SOURCE, end, numbered
from tests.trainer.labelled import example
from trainer.data.examples import dump_file, parse_file
from trainer.registry.registry import Registry

KEY = SecretStr("a key of the installation")
TENANT, AGENT = "tenant-of-marker", "agent-of-marker"


@pytest.fixture
def world(settings: Settings, topics: Topics, tmp_path: Path) -> World:
    """Two releases; both learned from a tenant, the second one from an agent, too."""
    made = World(
        small(settings, tmp_path, erase_key=KEY, train_batch_size=4, kafka_session_timeout=6.0)
    )
    made.open()
    for tenant in (TENANT, "kept"):
        made.pairs(20, tenant=tenant)
    train_now(made.settings)
    made.pairs(10, agent=Agent(name=AGENT, model="m"))
    made.pairs(20, tenant=TENANT)
    train_now(made.settings)
    assert made.live() == 3
    return made


def frozen_ids(world: World, manifest: RunManifest) -> set[str]:
    examples = Registry.of(world.settings).load_training_file(manifest.training_file)
    return {example.pair_id for example in examples}


def ids_on_topic(world: World, tenant: str) -> set[str]:
    records = kafka.read_to_end(world.settings, world.topics.labelled_pairs)
    found = [pairs.decode(record.value) for record in records]
    return {pair.pair_id for pair in found if pair.tenant == tenant}


@pytest.fixture
def mirrors(world: World, tmp_path: Path) -> Iterator[Mirrors]:
    with closing(Mirrors(world.settings, tmp_path / "copy")) as copies:
        copies.catch_up(lambda topic, count: None)
        yield copies


def test_a_tenant_is_erased_everywhere(world: World, mirrors: Mirrors, tmp_path: Path) -> None:
    gone, kept = ids_on_topic(world, TENANT), ids_on_topic(world, "kept")
    first, second = world.manifests()
    assert frozen_ids(world, first) & gone
    assert frozen_ids(world, second) & gone
    results = Path(world.settings.registry_url) / (
        f"{world.releases().by_version[2].model.location}.gate.jsonl"
    )
    before = results.read_text()

    found = erasing.erase(world.settings, "tenant", TENANT)

    assert found.pairs == len(gone) == 40
    assert set(found.runs) == {first.run_id, second.run_id}
    assert found.learned == (2, 3)
    registry = Registry.of(world.settings)
    for manifest in (first, second):
        left = frozen_ids(world, manifest)
        assert left
        assert not left & gone
        note = registry.notes.read(manifest.training_file.location)
        assert note.erasures == (found.erasure.erasure_id,)
    assert len(results.read_text()) < len(before)
    assert results.read_text().splitlines()[-1] == before.splitlines()[-1], "the pool stays"

    verified = verify(world.settings, first.run_id)
    assert verified.differences == {"erasure": (found.erasure.erasure_id,)}

    # A copy that had the pairs, and one that begins now.
    mirrors.pairs.forget(mirrors.erasures.refresh())
    assert not mirrors.pairs.get(sorted(gone))
    assert {pair.pair_id for pair in mirrors.pairs.get(sorted(kept))} == kept
    files = [file.read_bytes() for file in (tmp_path / "copy").glob("*labelled-pairs.sqlite*")]
    assert not any(TENANT.encode() in content for content in files)
    with closing(Mirrors(world.settings, tmp_path / "new copy")) as copies:
        copies.catch_up(lambda topic, count: None)
        assert not copies.pairs.get(sorted(gone))

        later = world.pairs(3, tenant=TENANT)
        copies.catch_up(lambda topic, count: None)
        assert len(copies.pairs.get([pair.pair_id for pair in later])) == 3, "later ones are kept"

    [record] = kafka.read_to_end(world.settings, world.topics.erasures)
    assert TENANT.encode() not in (record.value or b"")

    again = erasing.erase(world.settings, "agent", AGENT)
    assert (again.pairs, again.runs, again.learned) == (10, (second.run_id,), (3,))


def test_a_run_that_selects_its_pairs_meanwhile_begins_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst moment: its file is written after all files were rewritten."""
    world.pairs(20, tenant=TENANT)
    world.pairs(20, tenant="kept")
    gone, erased = ids_on_topic(world, TENANT), list[erasing.Erased]()
    store = Registry.store_training_file

    def after_an_erasure(self: Registry, retriever: str, examples: Any) -> Any:
        if not erased:
            assert {example.pair_id for example in examples} & gone
            erased.append(erasing.erase(world.settings, "tenant", TENANT))
        return store(self, retriever, examples)

    monkeypatch.setattr(Registry, "store_training_file", after_an_erasure)
    train_now(world.settings)
    *before, last = world.manifests()
    assert (len(before), len(erased)) == (2, 1)
    assert frozen_ids(world, last)
    assert last.run_id not in erased[0].runs
    registry = Registry.of(world.settings)
    files = registry.training_files(world.settings.retriever)
    assert len(files) == 3, "the file with erased pairs was removed"
    for manifest in world.manifests():
        assert manifest.training_file.location in files
        assert not frozen_ids(world, manifest) & gone


def test_a_file_of_a_run_that_ended_before_its_manifest(world: World) -> None:
    """Its pairs are not on the list of runs, but in the registry."""
    registry, (first, _) = Registry.of(world.settings), world.manifests()
    examples = registry.load_training_file(first.training_file)[1:]
    left = registry.store_training_file(world.settings.retriever, examples)
    gone = ids_on_topic(world, TENANT)
    assert {example.pair_id for example in examples} & gone
    erasing.erase(world.settings, "tenant", TENANT)
    assert not {example.pair_id for example in registry.load_training_file(left)} & gone


def test_reported_outcomes_are_withdrawn(world: World, tmp_path: Path) -> None:
    topics = world.topics
    records = kafka.read_to_end(world.settings, topics.labelled_pairs)
    known = {one.tenant: one.trajectory_id for one in (pairs.decode(r.value) for r in records)}
    # A trajectory without a pair is only on judged-events.
    [event] = numbered("pairless", [end()])
    judged = event | SOURCE | {"tenant": TENANT, "source_offset": 0, "source_time": 1}
    send = partial(kafka.publish_and_wait, world.producer)
    send(topics.judged_events, key=b"pairless", value=json.dumps(judged).encode())
    reported = {known[TENANT], known["kept"], "pairless", "unknown"}
    for name in reported:
        report = OutcomeReport(trajectory_id=name, outcome="correct", reported_at=datetime.now(UTC))
        send(topics.outcomes, key=name.encode(), value=report.to_json())

    with closing(Mirrors(world.settings, tmp_path / "copy")) as copies:
        copies.catch_up(lambda topic, count: None)
        assert erasing.erase(world.settings, "tenant", TENANT).reports == 2
        copies.catch_up(lambda topic, count: None)
        with copies.outcomes.snapshot() as outcomes:
            pairs_of = [world.pair(trajectory_id=name, outcome="unknown") for name in reported]
            left = {p.trajectory_id for p in pairs_of if outcomes.of(p) == "correct"}
        assert left == {known["kept"], "unknown"}
    files = [file.read_bytes() for file in (tmp_path / "copy").glob("*outcomes.sqlite*")]
    assert files
    assert not any(b"pairless" in content for content in files)

    assert erasing.erase(world.settings, "trajectory", "unknown").reports == 1
    # A later report is kept.
    send(topics.outcomes, key=b"unknown", value=report.to_json())
    assert erasing.erase(world.settings, "tenant", TENANT).reports == 0


def test_one_trajectory(world: World) -> None:
    found = erasing.erase(world.settings, "trajectory", "trajectory-1")
    assert found.pairs == 1
    assert erasing.erase(world.settings, "trajectory", "nobody").learned == ()


SABOTAGED = """
import os, signal, sys
from consumers import erasing
from schemas.settings import load
from trainer.registry.storage import Storage
real, writes = Storage.write, 0
def write(self, location, content):
    global writes
    if "training/" in location or "gate" in location:
        writes += 1
        if writes == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
    real(self, location, content)
Storage.write = write
erasing.erase(load(), "tenant", sys.argv[2])
"""


@pytest.mark.parametrize("write", [1, 2, 3])
def test_killed_in_the_middle_and_repeated(world: World, write: int) -> None:
    """Killed before the first note, between a note and its file, and between two files."""
    gone = ids_on_topic(world, TENANT)
    killed = subprocess.run(
        [sys.executable, "-c", SABOTAGED, str(write), TENANT],
        env=os.environ | environment.variables(world.settings),
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    for manifest in world.manifests():
        assert frozen_ids(world, manifest), "every file can be read"
    found = erasing.erase(world.settings, "tenant", TENANT)
    assert len(found.runs) == 2
    assert found.learned == (2, 3)
    for manifest in world.manifests():
        assert not frozen_ids(world, manifest) & gone


def test_a_process_without_the_key_stops(world: World, tmp_path: Path) -> None:
    erasing.erase(world.settings, "tenant", TENANT)
    for key in (None, SecretStr("another key, of 16 or more")):
        settings = world.settings.model_copy(update={"erase_key": key})
        with pytest.raises(ConfigurationError, match="RETRAIL_ERASE_KEY"):
            Mirrors(settings, tmp_path / "other")
    with pytest.raises(ConfigurationError, match="RETRAIL_ERASE_KEY"):
        erasing.erase(settings.model_copy(update={"erase_key": None}), "tenant", TENANT)


def test_events_that_are_not_judged_yet(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "JUDGE_SECONDS", 0.5)
    kafka.publish_and_wait(
        world.producer, world.topics.trajectory_events, key=b"t", value=b"not judged"
    )
    with pytest.raises(InputError, match=r"not read 1 events.*retrail worker judge"):
        erasing.erase(world.settings, "tenant", TENANT)
    assert list(kafka.read_to_end(world.settings, world.topics.erasures)) == []


def test_a_line_with_the_name_of_an_erased_tenant_goes_too() -> None:
    lines = [
        {"query": "only theirs"},
        {"query": "also of others", "tenant": "gone"},
        {"query": "also of others"},
        {"query": "also of others", "tenant": ""},
        {"query": "kept", "tenant": "kept"},
        {"documents": ["d"], "set": "pool"},
    ]
    content = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    asked = {"only theirs", "also of others"}
    left = erasing._without_queries(content, {"only theirs"}, asked)
    assert [orjson.loads(line) for line in left.splitlines()] == lines[2:]
    assert erasing._without_queries(content, {"only theirs"}, set()).count(b"\n") == 5


def test_the_example_of_an_earlier_query_goes_with_its_pair() -> None:
    found, made = "1" * 32, "3" * 32
    examples = [
        example(1, pair_id=found),
        example(2, pair_id=made, found_by=found),
        example(3, pair_id="4" * 32),
    ]

    def left(*covered: str) -> list[str]:
        content = erasing._without_pairs(dump_file(examples), set(covered))
        return [one.pair_id for one in parse_file(content, "training file")]

    assert left("5" * 32) == [found, made, "4" * 32]
    assert left(found) == ["4" * 32]
