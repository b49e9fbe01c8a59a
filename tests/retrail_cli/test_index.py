"""`retrail index rebuild` on Apache Kafka and Milvus, without a worker."""

import secrets
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from consumers.indexing.milvus import Milvus
from retrail_runtime.milvus import Build, collection_name
from schemas.settings import Settings
from schemas.topics import Topics
from tests import index_harness as harness


@pytest.fixture
def installation(settings: Settings, topics: Topics, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The variables that name it."""
    for name in ("kafka_bootstrap", "milvus_uri", "topic_prefix", "retriever"):
        monkeypatch.setenv(f"RETRAIL_{name.upper()}", getattr(settings, name))
    return settings


def test_a_rebuild_is_requested_in_the_collection_of_the_live_release(
    retrail: Any, installation: Settings, tmp_path: Path
) -> None:
    for version in (1, 2):
        harness.release(installation, version, version, tmp_path)
    harness.make_live(installation, 2)
    retriever = installation.retriever
    builds = [
        Build(collection_name(retriever, version), version, secrets.token_hex(4), "folder", "d")
        for version in (1, 2)
    ]
    with closing(Milvus(installation)) as milvus:
        for build in builds:
            milvus.create(build, 8)
        done = retrail("index", "rebuild")
        assert done.status == 0, done
        one, two = milvus.builds()
        assert one == builds[0]
        assert two.build_id == builds[1].build_id
        assert collection_name(retriever, 2, two.successor) in done.out
        assert retrail("index", "rebuild").status == 0
        assert milvus.builds()[1].successor != two.successor
        for build in builds:
            milvus.drop(build)


def test_without_a_collection_there_is_nothing_to_build_again(
    retrail: Any, installation: Settings
) -> None:
    done = retrail("index", "rebuild")
    assert done.status == 1
    assert "has no collection yet" in done.err
