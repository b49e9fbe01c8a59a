"""What a refusal says: Kafka's own reason, which setting, what to do; on a secured broker."""

import logging
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy import environment, topics
from deploy.stack import LocalStack
from retrail_runtime import kafka
from retrail_runtime.kafka import require_broker
from schemas.errors import ConfigurationError, RetrailError
from schemas.settings import Settings
from schemas.topics import Topics
from tests.refused import assert_refused
from tests.servers.secured_kafka import PLAIN_USER, Access, SecuredKafka

Change = Callable[[SecuredKafka, Path], tuple[Access, dict[str, Any]]]
Mistake = tuple[Change, str, str]


def test_a_connection_leaves_no_logger_behind() -> None:
    """`retrail serve` and the workers probe again and again."""
    before = len(logging.Logger.manager.loggerDict)
    for _ in range(3):
        kafka.Probe(Settings())
    assert len(logging.Logger.manager.loggerDict) == before


def junk(folder: Path) -> Path:
    file = folder / "junk.pem"
    file.write_text("no certificate")
    return file


def foreign_client(broker: SecuredKafka) -> dict[str, Any]:
    certificate, key = broker.foreign.issue("stranger")
    return {"kafka_ssl_certfile": certificate, "kafka_ssl_keyfile": key}


MISTAKES: dict[str, Mistake] = {
    "wrong password": (
        lambda b, f: (b.sasl("known"), {"kafka_sasl_password": "wrong"}),
        "invalid credentials with SASL mechanism SCRAM-SHA-512",
        "RETRAIL_KAFKA_SASL_PASSWORD",
    ),
    "wrong mechanism": (
        lambda b, f: (b.sasl("known"), {"kafka_sasl_mechanism": "SCRAM-SHA-256"}),
        "Unsupported SASL mechanism",
        "RETRAIL_KAFKA_SASL_MECHANISM",
    ),
    "wrong client secret": (
        lambda b, f: (b.sasl("o", "OAUTHBEARER"), {"kafka_sasl_password": "wrong"}),
        "invalid_client",
        "RETRAIL_KAFKA_SASL_TOKEN_URL",
    ),
    "no token endpoint": (
        lambda b, f: (b.sasl("o", "OAUTHBEARER"), {"kafka_sasl_token_url": None}),
        "is mandatory",
        "RETRAIL_KAFKA_SASL_TOKEN_URL",
    ),
    "token endpoint that is down": (
        lambda b, f: (b.sasl("o", "OAUTHBEARER"), {"kafka_sasl_token_url": "http://127.0.0.1:1/"}),
        "Could not connect",
        "RETRAIL_KAFKA_SASL_TOKEN_URL",
    ),
    "TLS against plaintext": (
        lambda b, f: (b.sasl("known"), {"kafka_bootstrap": b.address}),
        "PLAINTEXT broker listener",
        "RETRAIL_KAFKA_SECURITY_PROTOCOL",
    ),
    "plaintext against TLS": (
        lambda b, f: (b.sasl("known"), {"kafka_security_protocol": "PLAINTEXT"}),
        "isconnect",
        "RETRAIL_KAFKA_SECURITY_PROTOCOL",
    ),
    "SASL without TLS against TLS": (
        lambda b, f: (b.sasl("known"), {"kafka_security_protocol": "SASL_PLAINTEXT"}),
        "isconnect",
        "RETRAIL_KAFKA_SECURITY_PROTOCOL",
    ),
    "TLS without SASL against SASL": (
        lambda b, f: (b.sasl("known"), {"kafka_security_protocol": "SSL"}),
        "isconnect",
        "RETRAIL_KAFKA_SECURITY_PROTOCOL",
    ),
    "SASL where there is none": (
        lambda b, f: (
            b.sasl("known"),
            {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_bootstrap": b.address},
        ),
        "not valid in current SASL state",
        "RETRAIL_KAFKA_SECURITY_PROTOCOL",
    ),
    "foreign CA": (
        lambda b, f: (b.sasl("known"), {"kafka_ssl_cafile": b.foreign.certificate}),
        "certificate verify failed",
        "RETRAIL_KAFKA_SSL_CAFILE",
    ),
    "absent CA file": (
        lambda b, f: (b.sasl("known"), {"kafka_ssl_cafile": f / "absent.pem"}),
        "No such file",
        "RETRAIL_KAFKA_SSL_CAFILE",
    ),
    "CA file without a certificate": (
        lambda b, f: (b.sasl("known"), {"kafka_ssl_cafile": junk(f)}),
        "no certificate",
        "RETRAIL_KAFKA_SSL_CAFILE",
    ),
    "no client certificate": (
        lambda b, f: (b.mtls("known"), {"kafka_ssl_certfile": None, "kafka_ssl_keyfile": None}),
        "certificate required",
        "RETRAIL_KAFKA_SSL_CERTFILE",
    ),
    "foreign client certificate": (
        lambda b, f: (b.mtls("known"), foreign_client(b)),
        "certificate",
        "RETRAIL_KAFKA_SSL_CERTFILE",
    ),
    "wrong password of the key": (
        lambda b, f: (b.mtls("known"), {"kafka_ssl_keypassword": "wrong"}),
        "ssl.key.location failed",
        "RETRAIL_KAFKA_SSL_KEYPASSWORD",
    ),
}


@pytest.fixture(scope="module")
def broker(secured: SecuredKafka) -> SecuredKafka:
    """With one user, who has no right at all."""
    secured.make_users(["known"])
    return secured


@pytest.fixture
def base(tmp_path: Path) -> Settings:
    return Settings(
        topic_prefix=f"t{secrets.token_hex(4)}_", data_dir=tmp_path / "data", partitions=1
    )


@pytest.fixture
def existing(base: Settings, broker: SecuredKafka) -> Settings:
    """The same, whose topics the super user made."""
    topics.ensure(base.model_copy(update={"kafka_bootstrap": broker.address}))
    return base


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=list(MISTAKES))
def test_refused_connection(
    mistake: Mistake, broker: SecuredKafka, base: Settings, tmp_path: Path
) -> None:
    change, reason, setting = mistake
    access, changes = change(broker, tmp_path)
    settings = access.of(base, **changes)
    assert_refused(lambda: require_broker(settings, []), reason, setting)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN", "OAUTHBEARER", "mTLS"])
def test_ways_in_with_librdkafka(mechanism: str, broker: SecuredKafka, base: Settings) -> None:
    user = {"SCRAM-SHA-512": "known", "PLAIN": PLAIN_USER}.get(mechanism, "somebody")
    access = broker.mtls(user) if mechanism == "mTLS" else broker.sasl(user, mechanism)
    require_broker(access.of(base), [])


def test_a_topic_that_may_not_be_described_is_not_missing(
    broker: SecuredKafka, existing: Settings
) -> None:
    settings = broker.sasl("known").of(existing)
    refusal = "authorization failed.*lacks a right.*retrail topics acls"
    for work in (
        lambda: require_broker(settings),
        lambda: topics.survey(settings),
        lambda: kafka.topic_id(kafka.admin(settings), Topics.of(settings).documents),
        lambda: list(kafka.read_to_end(settings, Topics.of(settings).documents)),
    ):
        with pytest.raises(ConfigurationError, match=r"lacks a right.*retrail topics acls"):
            work()
    with pytest.raises(RetrailError, match=f"(?i){refusal}"):
        kafka.publish_and_wait(
            kafka.producer(settings), Topics.of(settings).documents, value=b"refused"
        )


@pytest.mark.parametrize("role", ["judge", "mine", "train", "index", "serve"])
@pytest.mark.parametrize("mistake", ["wrong password", "missing right"])
def test_every_process_ends_with_the_reason(
    role: str, mistake: str, broker: SecuredKafka, existing: Settings, milvus: str
) -> None:
    changes = {"kafka_sasl_password": "wrong"} if mistake == "wrong password" else {}
    settings = broker.sasl("known").of(existing, milvus_uri=milvus, **changes)
    command = ["serve", "--port", "0"] if role == "serve" else ["worker", role]
    ended = subprocess.run(
        [sys.executable, "-m", "retrail_cli", *command],
        env=environment_of(settings),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "retrail up" not in ended.stderr
    wanted = "RETRAIL_KAFKA_SASL_PASSWORD" if "password" in mistake else "retrail topics acls"
    assert wanted in ended.stderr.splitlines()[-1]


def environment_of(settings: Settings) -> dict[str, str]:
    import os

    return os.environ | environment.variables(settings)


@pytest.mark.parametrize(
    ("password", "wanted"),
    [("wrong", "RETRAIL_KAFKA_SASL_PASSWORD"), (None, "lacks a right.*retrail topics acls")],
    ids=["wrong password", "missing right"],
)
def test_up_with_a_broker_that_refuses(
    password: str | None, wanted: str, broker: SecuredKafka, existing: Settings, milvus: str
) -> None:
    changes = {"kafka_sasl_password": password} if password else {}
    settings = broker.sasl("known").of(existing, milvus_uri=milvus, **changes)
    with pytest.raises(ConfigurationError, match=wanted):
        LocalStack(settings, ("judge",)).start()
