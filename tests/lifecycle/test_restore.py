"""A whole installation is restored on another Kafka and another Milvus, from its topics, its
registry and its settings alone."""

import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from consumers import releases
from deploy import environment, topics
from deploy.kafka import KafkaBroker
from deploy.milvus import MilvusLite
from deploy.stack import ROLES
from schemas.settings import Settings
from schemas.topics import Topics
from tests.lifecycle.copying import copy
from tests.lifecycle.fleet import Installation, load_documents, settings_of, until_live_serves
from tests.streams.topics import (
    assert_same_pairs,
    judged_of,
    judged_offline,
    publish,
)
from tests.streams.trajectories import interleaved, mined_offline, trajectory
from tests.waiting import eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]


@pytest.fixture
def other_milvus(tmp_path: Path) -> Iterator[str]:
    """A Milvus without any collection."""
    server = MilvusLite(tmp_path / "other-milvus", tmp_path / "other-milvus.log")
    server.start()
    yield server.client_address
    server.stop()


@pytest.fixture
def fleets(
    kafka: str, milvus: str, own_broker: KafkaBroker, other_milvus: str, tmp_path: Path
) -> Iterator[tuple[Installation, Installation]]:
    """The installation that is lost, and where it is restored: other addresses, another folder."""
    name = f"b{secrets.token_hex(4)}"
    lost = settings_of(tmp_path, kafka, milvus, name)
    addresses = {
        "kafka_bootstrap": own_broker.client_address,
        "milvus_uri": other_milvus,
        "data_dir": tmp_path / "restored",
    }
    found = [Installation(one, tmp_path) for one in (lost, lost.model_copy(update=addresses))]
    yield found[0], found[1]
    for fleet in found:
        fleet.kill_all()


def restore_check(settings: Settings) -> tuple[int, str]:
    """Exit status and output of `retrail restore-check`."""
    ended = subprocess.run(
        [sys.executable, "-m", "retrail_cli", "restore-check"],
        env=environment.variables(settings) | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    return ended.returncode, ended.stdout + ended.stderr


def go_on_where_the_judge_was(settings: Settings, shown: str) -> int:
    """Do what `restore-check` says about the judge's group; returns for how many partitions."""
    group = settings.group("judge", revised=True)
    said = re.findall(
        rf"--group {group} --topic (\S+):(\d+) --reset-offsets --to-offset (\d+)", shown
    )
    consumer = Consumer(settings.kafka(group_id=group))
    places = [TopicPartition(topic, int(p), int(offset)) for topic, p, offset in said]
    consumer.commit(offsets=places, asynchronous=False)
    consumer.close()
    return len(places)


def test_a_whole_installation_on_another_cluster(
    fleets: tuple[Installation, Installation], tmp_path: Path
) -> None:
    fleet, again = fleets
    lost, restored = fleet.settings, again.settings
    names = Topics.of(lost)
    topics.ensure(lost)
    load_documents(lost)
    workers = [fleet.start(role) for role in ROLES]
    until_live_serves(lost)
    whole = interleaved(trajectory(f"w{n}", numbered=n % 3 > 0) for n in range(120))
    publish(lost, whole)
    # These are open when the backup is made: their last events come later.
    open_ones = [trajectory(f"o{n}", numbered=n % 3 > 0) for n in range(12)]
    publish(lost, [event for events in open_ones for event in events[:8]])
    expected = mined_offline(whole, lost)
    fleet.until_pairs(expected, 120)
    eventually(lambda: len(releases.read(lost).by_version) > 1, 120, "a release", interval=1)
    until_live_serves(lost)
    for worker in workers:
        worker.leave()
    live = releases.read(lost).live
    assert live is not None
    # Acknowledged, and never judged there.
    publish(lost, [event for events in open_ones for event in events[8:12]])
    # Retention has removed the first events.
    first = TopicPartition(names.trajectory_events, 0, 5)
    admin = AdminClient(lost.kafka())
    admin.delete_records([first])[first].result(30)

    status, shown = restore_check(restored)
    assert status == 1
    assert "retrail topics create" in shown
    copy(lost, restored)
    status, shown = restore_check(restored)
    assert status == 1
    assert re.search("missing +Live release: .*RETRAIL_REGISTRY", shown), shown
    shutil.copytree(lost.data_dir / "registry", restored.data_dir / "registry")
    # Local copies of the lost topics, such as a volume that was restored with the rest.
    shutil.copytree(lost.data_dir / "train", restored.data_dir / "train")
    status, shown = restore_check(restored)
    assert status == 0, shown
    assert re.search(rf"ok +Live release: {live.version},", shown), shown
    assert "are of other topics. They are rebuilt at the start." in shown
    assert go_on_where_the_judge_was(restored, shown) == restored.partitions
    assert "--reset-offsets" not in restore_check(restored)[1]

    workers = [again.start(role) for role in ROLES]
    for worker in workers:
        again.until_ready(worker)
    publish(restored, [event for events in open_ones for event in events[12:]])
    more = interleaved(trajectory(f"m{n}", numbered=n % 3 > 0) for n in range(40))
    publish(restored, more)
    expected |= mined_offline(interleaved(open_ones), restored)
    expected |= mined_offline(more, restored)
    again.until_pairs(expected, 120)
    assert until_live_serves(restored) >= live.version
    server = again.started("serve")
    url = f"http://127.0.0.1:{server.port}/v1/search"
    assert httpx.post(url, json={"query": "document 7", "k": 5}, timeout=60).json()["hits"]
    again.finish()

    assert judged_offline(restored) == expected, "a fold of the restored log"
    assert_same_pairs(restored, expected)
    ids = [one.event_id for part in judged_of(restored).values() for one in part]
    assert len(ids) == len(set(ids)), "events that were judged before are judged again"
    assert set(releases.read(restored).by_version) >= set(releases.read(lost).by_version)
