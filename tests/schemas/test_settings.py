"""Settings: where they come from, and what a bad one says."""

import pytest

from schemas.errors import ConfigurationError
from schemas.settings import Settings, load, secret_fields
from schemas.settings.loading import _warn
from schemas.topics import Topics, specs


def test_the_environment_wins_over_the_file_and_arguments_over_both(tmp_path, monkeypatch):
    file = tmp_path / "env"
    file.write_text("RETRAIL_TOPIC_PREFIX=file_\nRETRAIL_RETRIEVER=wiki\nRETRAIL_PARTITIONS=7\n")
    monkeypatch.setenv("RETRAIL_ENV_FILE", str(file))
    monkeypatch.setenv("RETRAIL_RETRIEVER", "docs")
    settings = load(partitions=3)
    assert (settings.topic_prefix, settings.retriever, settings.partitions) == ("file_", "docs", 3)


@pytest.mark.parametrize("content", [None, b"RETRAIL_RETRIEVER=\xff\n"])
def test_a_file_that_cannot_be_read_is_not_passed_over(tmp_path, monkeypatch, content):
    file = tmp_path / "env"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("RETRAIL_ENV_FILE", str(file))
    with pytest.raises(ConfigurationError, match=r"RETRAIL_ENV_FILE=.*env cannot be read"):
        load()


def test_a_bad_setting_is_named_and_its_value_is_kept_out(monkeypatch):
    monkeypatch.setenv("RETRAIL_PARTITIONS", "s3cret")
    with pytest.raises(ConfigurationError, match="RETRAIL_PARTITIONS") as error:
        load()
    assert "s3cret" not in str(error.value)


def test_security_settings_reach_librdkafka():
    config = Settings(
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="SCRAM-SHA-512",
        kafka_sasl_username="u",
        kafka_sasl_password="p",
        kafka_ssl_cafile="/ca.pem",
    ).kafka(group_id="g")
    assert config["security.protocol"] == "SASL_SSL"
    assert (config["sasl.username"], config["sasl.password"]) == ("u", "p")
    assert config["ssl.ca.location"] == "/ca.pem"
    assert config["group.id"] == "g"


def test_a_revision_suffixes_what_it_starts_anew():
    settings = Settings(topic_prefix="p_", revision="r2")
    topics = Topics.of(settings)
    assert topics.judged_events == "p_judged-events-r2"
    assert topics.labelled_pairs == "p_labelled-pairs-r2"
    assert topics.trajectory_events == "p_trajectory-events"
    assert settings.group("mine", revised=True) == "p_retrail-mine-r2"
    assert settings.group("train") == "p_retrail-train"


def test_topics_keyed_by_trajectory_have_as_many_partitions():
    by_name = {spec.name: spec for spec in specs(Settings(partitions=6))}
    keyed = ("trajectory-events", "judged-events", "labelled-pairs")
    assert {by_name[name].partitions for name in keyed} == {6}
    assert by_name["training-runs"].partitions == 1
    source, letters = by_name["trajectory-events"], by_name["trajectory-events.dlq"]
    assert letters.max_message_bytes > source.max_message_bytes


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (None, "/data/registry"),
        ("", "/data/registry"),
        ("/mnt/models", "/mnt/models"),
        ("file:///mnt/models/", "/mnt/models"),
        ("~/models", "/home/me/models"),
        ("s3://bucket/prefix/", "s3://bucket/prefix"),
    ],
)
def test_a_registry_is_a_folder_or_a_url(given, url, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("RETRAIL_DATA_DIR", "/data")
    if given is not None:
        monkeypatch.setenv("RETRAIL_REGISTRY", given)
    settings = load()
    assert settings.registry_url == url


def test_names_that_are_not_settings_are_warnings_with_the_nearest(monkeypatch, tmp_path, caplog):
    file = tmp_path / "retrail.env"
    file.write_text("# kept\n\n[section]\nwhat\nexport RETRAIL_KAFKA_BOOTSTRP='k:1'\nOTHER=1\n")
    monkeypatch.setenv("RETRAIL_ENV_FILE", str(file))
    monkeypatch.setenv("RETRAIL_GATE_MARGINS", ".1")
    monkeypatch.setenv("RETRAIL_ZZZZZZ", "1")
    _warn.cache_clear()
    load()
    load()
    assert caplog.messages == [
        f"{file}:3 is not an assignment.",
        f"{file}:4 is not an assignment.",
        "RETRAIL_GATE_MARGINS is not a setting of Retrail. Did you mean RETRAIL_GATE_MARGIN?",
        "RETRAIL_KAFKA_BOOTSTRP is not a setting of Retrail. Did you mean RETRAIL_KAFKA_BOOTSTRAP?",
        "RETRAIL_ZZZZZZ is not a setting of Retrail.",
    ]


def test_a_secret_may_be_in_a_file_of_its_own(monkeypatch, tmp_path):
    secret, env = tmp_path / "secret", tmp_path / "env"
    secret.write_text("hush\n")
    env.write_text(f"RETRAIL_KAFKA_SASL_PASSWORD_FILE={secret}\n")
    monkeypatch.setenv("RETRAIL_ENV_FILE", str(env))
    monkeypatch.setenv("RETRAIL_MILVUS_TOKEN_FILE", str(secret))
    settings = load()

    assert settings.kafka_sasl_password.get_secret_value() == "hush"
    assert settings.milvus_token.get_secret_value() == "hush"
    monkeypatch.setenv("RETRAIL_MILVUS_TOKEN", "set itself")
    assert load().milvus_token.get_secret_value() == "set itself"


@pytest.mark.parametrize("name", secret_fields())
def test_every_secret_has_a_file_and_an_unreadable_one_is_an_error(monkeypatch, tmp_path, name):
    variable = f"RETRAIL_{name.upper()}"
    monkeypatch.setenv(f"{variable}_FILE", str(tmp_path / "absent"))
    if name == "serve_secret":
        assert load().serve_secret_path == tmp_path / "absent"
        return
    with pytest.raises(ConfigurationError, match=rf"{variable}_FILE=.*absent.*No such file"):
        load()


@pytest.mark.parametrize(
    ("name", "address", "pointer"),
    [
        ("KAFKA_BOOTSTRAP", "k:1,me:hush@l:2", "RETRAIL_KAFKA_SASL_PASSWORD"),
        ("MILVUS_URI", "https://me:hush@m:1", "RETRAIL_MILVUS_TOKEN"),
        ("JUDGE_URL", "http://hush@j/v1", "RETRAIL_JUDGE_API_KEY"),
        ("REGISTRY", "s3://me:hush@bucket/models", "AWS_SECRET_ACCESS_KEY"),
        ("KAFKA_SASL_TOKEN_URL", "https://me:hush@t/token", "RETRAIL_KAFKA_SASL_USERNAME"),
    ],
)
def test_credentials_in_an_address_are_refused(monkeypatch, name, address, pointer):
    monkeypatch.setenv(f"RETRAIL_{name}", address)
    with pytest.raises(ConfigurationError, match=rf"RETRAIL_{name}: .*{pointer}") as caught:
        load()
    assert "hush" not in str(caught.value)


def test_an_at_sign_elsewhere_is_no_credential(monkeypatch):
    monkeypatch.setenv("RETRAIL_REGISTRY", "/mnt/models@home")
    monkeypatch.setenv("RETRAIL_JUDGE_URL", "http://j/v1/@latest")
    assert load().registry_url == "/mnt/models@home"
