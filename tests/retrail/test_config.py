"""The client reads the variables that the rest of Retrail reads, and reads them the same way."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.environment import write
from retrail import Limits, Timeout
from retrail.config import FIXED, environment, kafka_config, secret, topic_name
from retrail.errors import ConfigurationError
from retrail.wire import MAX_EVENT_BYTES
from schemas.settings import Settings, load
from schemas.topics import Topics

SECURED = {
    "RETRAIL_KAFKA_BOOTSTRAP": "k1:9092,k2:9092",
    "RETRAIL_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "RETRAIL_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "RETRAIL_KAFKA_SASL_USERNAME": "agent",
    "RETRAIL_KAFKA_SASL_PASSWORD": "s3cret",
    "RETRAIL_KAFKA_SSL_CAFILE": "/etc/ca.pem",
    "RETRAIL_KAFKA_SSL_CERTFILE": "/etc/cert.pem",
    "RETRAIL_KAFKA_SSL_KEYFILE": "/etc/key.pem",
    "RETRAIL_KAFKA_SSL_KEYPASSWORD": "of the key",
    "RETRAIL_TOPIC_PREFIX": "team_",
}
OIDC = SECURED | {
    "RETRAIL_KAFKA_SASL_MECHANISM": "OAUTHBEARER",
    "RETRAIL_KAFKA_SASL_TOKEN_URL": "https://login.example/token",
    "RETRAIL_KAFKA_SASL_SCOPE": "kafka",
}
WITHOUT_SCOPE = OIDC | {"RETRAIL_KAFKA_SASL_SCOPE": ""}


@pytest.mark.parametrize(
    "variables",
    [{}, SECURED, OIDC, WITHOUT_SCOPE],
    ids=["defaults", "secured", "OAUTHBEARER", "no scope"],
)
def test_the_same_variables_mean_the_same_to_client_and_settings(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in OIDC:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = environment()
    assert kafka_config(None, {}, found) == Settings().kafka()
    assert topic_name(None, found) == Topics.of(Settings()).trajectory_events
    assert topic_name(None, found, "outcomes") == Topics.of(Settings()).outcomes


def test_secrets_in_files_are_those_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = ("RETRAIL_KAFKA_SASL_PASSWORD", "RETRAIL_KAFKA_SSL_KEYPASSWORD")
    for name in OIDC:
        monkeypatch.delenv(name, raising=False)
    for name, value in OIDC.items():
        if name in secrets:
            path = tmp_path / name
            path.write_text(f"{value} of a file\n")
            name, value = f"{name}_FILE", str(path)
        monkeypatch.setenv(name, value)
    config = kafka_config(None, {}, environment())
    assert config == load().kafka()
    assert config["sasl.oauthbearer.client.secret"] == "s3cret of a file"
    assert config["ssl.key.password"] == "of the key of a file"
    monkeypatch.setenv(secrets[0], "set itself")
    config = kafka_config(None, {}, environment())
    assert config == load().kafka()
    assert config["sasl.oauthbearer.client.secret"] == "set itself"


def test_the_file_of_a_secret_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    variables = {"RETRAIL_SERVE_TOKEN_FILE": str(tmp_path / "absent")}
    with pytest.raises(ConfigurationError, match=r"RETRAIL_SERVE_TOKEN_FILE=.*absent"):
        secret(variables, "RETRAIL_SERVE_TOKEN")
    # Only who needs the secret reads its file.
    assert kafka_config(None, {}, variables) == Settings().kafka()


def test_arguments_win_over_variables() -> None:
    config = kafka_config("mine:1", {"security.protocol": "SSL"}, SECURED)
    assert config["bootstrap.servers"] == "mine:1"
    assert config["security.protocol"] == "SSL"
    assert topic_name("", SECURED) == "trajectory-events"


@pytest.mark.parametrize("name", sorted(FIXED))
def test_what_the_guarantees_rest_on_cannot_be_changed(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        kafka_config(None, {name: "other"}, {})


def test_variables_come_from_a_file_too_and_the_environment_wins(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text(
        "# written by hand\nRETRAIL_KAFKA_BOOTSTRAP='k1:1'\n\nexport RETRAIL_TOPIC_PREFIX=a_\n"
        'RETRAIL_KAFKA_SASL_USERNAME = "x=y"\nOTHER=1\nnonsense\n'
    )
    found = environment({"RETRAIL_ENV_FILE": str(path), "RETRAIL_TOPIC_PREFIX": "b_", "HOME": "/"})
    assert found == {
        "RETRAIL_ENV_FILE": str(path),
        "RETRAIL_KAFKA_BOOTSTRAP": "k1:1",
        "RETRAIL_KAFKA_SASL_USERNAME": "x=y",
        "RETRAIL_TOPIC_PREFIX": "b_",
    }


@given(st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" ")))
def test_the_file_of_a_stack_is_read_as_it_was_meant(value: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "env"
        write(path, {"RETRAIL_KAFKA_SASL_PASSWORD": value, "RETRAIL_TOPIC_PREFIX": "x"})
        found = environment({"RETRAIL_ENV_FILE": str(path)})
    assert found["RETRAIL_KAFKA_SASL_PASSWORD"] == value
    assert found["RETRAIL_TOPIC_PREFIX"] == "x"


def test_a_file_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigurationError, match="/nowhere/env"):
        environment({"RETRAIL_ENV_FILE": "/nowhere/env"})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Limits(events=0),
        lambda: Limits(bytes=MAX_EVENT_BYTES - 1),
        lambda: Timeout(block=-1),
        lambda: Timeout(delivery=float("inf")),
        lambda: Timeout(close=float("nan")),
    ],
)
def test_limits_and_timeouts_are_checked_once(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError):
        make()


def test_the_largest_event_fits_any_limits() -> None:
    assert Limits(events=1, bytes=MAX_EVENT_BYTES).bytes == MAX_EVENT_BYTES
