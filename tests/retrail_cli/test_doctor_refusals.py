"""`retrail doctor` under every mistake with credentials, certificates, addresses and rights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec import get_filesystem_class

from deploy import environment
from schemas.settings import Settings
from tests.retrail_cli.test_doctor import lines
from tests.retrail_runtime import test_milvus_refusals, test_refusals
from tests.servers.guarded_milvus import GuardedMilvus
from tests.servers.s3_gateway import S3Gateway
from tests.servers.secured_kafka import SecuredKafka
from tests.started_servers import on_s3
from tests.tiny_model import write_tiny_model
from tests.trainer.registry import test_storage_refusals
from tests.trainer.registry.test_storage_refusals import Servers

Doctor = Callable[[dict[str, str]], dict[str, tuple[str, str]]]


@pytest.fixture
def doctor(
    retrail: Any, closed_port: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Doctor:
    """Runs it with these variables; the other servers do not answer."""

    def run(variables: dict[str, str]) -> dict[str, tuple[str, str]]:
        away = Settings(
            kafka_bootstrap=closed_port,
            milvus_uri=f"http://{closed_port}",
            model=str(write_tiny_model(tmp_path / "model")),
            data_dir=tmp_path / "data",
        )
        for name, value in (environment.variables(away) | variables).items():
            monkeypatch.setenv(name, value)
        done = retrail("doctor")
        assert done.status == 1
        assert "Traceback" not in done.out + done.err
        return lines(done.out)

    return run


def of(server: str, settings: Settings) -> dict[str, str]:
    """The variables of one server."""
    every = environment.variables(settings)
    return {name: value for name, value in every.items() if name.startswith(f"RETRAIL_{server}_")}


def shows(found: tuple[str, str], reason: str, setting: str) -> None:
    state, text = found
    assert state == "missing"
    assert reason in text
    assert setting in text
    assert "retrail up" not in text


@pytest.mark.parametrize(
    "mistake", test_refusals.MISTAKES.values(), ids=list(test_refusals.MISTAKES)
)
def test_kafka(
    mistake: test_refusals.Mistake, secured: SecuredKafka, doctor: Doctor, tmp_path: Path
) -> None:
    secured.make_users(["known"])
    change, reason, setting = mistake
    access, changes = change(secured, tmp_path)
    settings = access.of(Settings(), **changes)
    shows(doctor(of("KAFKA", settings))["Kafka"], reason, setting)


def test_a_missing_right_on_kafka(secured: SecuredKafka, doctor: Doctor) -> None:
    secured.make_users(["known"])
    found = doctor(of("KAFKA", secured.sasl("known").of(Settings())))
    assert found["Kafka"][0] == "ok"
    shows(found["Topics"], "lacks a right", "retrail topics acls")


@test_milvus_refusals.mistaken
def test_milvus(
    mistake: tuple[test_milvus_refusals.Change, str, str],
    guarded_milvus: GuardedMilvus,
    doctor: Doctor,
) -> None:
    change, reason, setting = mistake
    settings = guarded_milvus.trusting.model_copy(update=change(guarded_milvus))
    shows(doctor(of("MILVUS", settings))["Milvus"], reason, setting)


@on_s3
@pytest.mark.parametrize(
    "mistake", test_storage_refusals.MISTAKES.values(), ids=list(test_storage_refusals.MISTAKES)
)
def test_object_storage(
    mistake: tuple[test_storage_refusals.Change, str, str],
    s3_url: str,
    s3_gateway: S3Gateway,
    s3_over_tls: S3Gateway,
    doctor: Doctor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change, reason, setting = mistake
    servers = Servers(s3_gateway, s3_over_tls, tmp_path)
    get_filesystem_class("s3").clear_instance_cache()
    changes = change(servers)
    test_storage_refusals.apply(changes, monkeypatch)
    url = changes.get("RETRAIL_REGISTRY", s3_url)
    try:
        found = doctor({"RETRAIL_REGISTRY": url})["Registry of models"]
    finally:
        get_filesystem_class("s3").clear_instance_cache()
    shows(found, reason, setting)
