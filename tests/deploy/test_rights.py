"""The rights of every role on a broker with the standard authorizer: these, and no others."""

import secrets
import shlex
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from deploy import acls, environment, topics
from retrail import Publisher
from retrail_runtime.kafka import require_rights
from retrail_runtime.kafka.refusals import UNAUTHORIZED
from schemas.errors import ConfigurationError
from schemas.rights import ROLES, Right, RoleName, principal, rights
from schemas.settings import Settings
from schemas.topics import Topics
from tests.servers.secured_kafka import SecuredKafka
from tests.waiting import eventually

OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
    "Create": AclOperation.CREATE,
}


def grant(broker: SecuredKafka, user: str, given: Iterable[Right]) -> None:
    """Give a user exactly these rights."""
    admin = broker.admin
    bindings = [
        AclBinding(
            ResourceType.TOPIC if right.resource == "topic" else ResourceType.GROUP,
            right.name,
            ResourcePatternType.PREFIXED if right.prefixed else ResourcePatternType.LITERAL,
            f"User:{user}",
            "*",
            OPERATIONS[operation],
            AclPermissionType.ALLOW,
        )
        for right in given
        for operation in right.operations
    ]
    for future in admin.create_acls(bindings).values():
        future.result()


@pytest.fixture(scope="module")
def installed(secured: SecuredKafka) -> Settings:
    """Topics with one record each, and a user with its rights for every role."""
    settings = Settings(topic_prefix=f"t{secrets.token_hex(4)}_", partitions=1)
    administered = settings.model_copy(update={"kafka_bootstrap": secured.address})
    topics.ensure(administered)
    producer = Producer(administered.kafka())
    for name in asdict(Topics.of(settings)).values():
        producer.produce(name, b"one", key=b"one")
    assert producer.flush(10) == 0
    secured.make_users([principal(settings, role) for role in ROLES])
    for role in ROLES:
        grant(secured, principal(settings, role), rights(settings, role))
    return settings


def allowed_topics(user: Settings, names: list[str]) -> dict[str, set[str]]:
    """What a client may do with each topic, found by doing it."""
    found: dict[str, set[str]] = {name: set() for name in names}

    def delivered(error: KafkaError | None, message: Any) -> None:
        if error is None:
            found[message.topic()].add("Write")
        else:
            assert error.code() in UNAUTHORIZED, error

    producer = Producer(user.kafka(message_timeout_ms=5000) | {"log_level": 0})
    for name in names:
        producer.produce(name, b"two", key=b"two", on_delivery=delivered)
    assert producer.flush(20) == 0

    admin = AdminClient(user.kafka() | {"log_level": 0})
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    for resource, future in admin.describe_configs(resources, request_timeout=10).items():
        if succeeded(future):
            found[resource.name].add("DescribeConfigs")
    for name in names:
        error = admin.list_topics(name, timeout=10).topics[name].error
        if error is None:
            found[name].add("Describe")
        else:
            assert error.code() in UNAUTHORIZED, error
    created = admin.create_topics(
        [NewTopic(name, 1, 1) for name in names], validate_only=True, request_timeout=10
    )
    for name, future in created.items():
        if succeeded(future, but=KafkaError.TOPIC_ALREADY_EXISTS):
            found[name].add("Create")
    deleted = admin.delete_topics(["absent", *names], request_timeout=10)
    assert not any(succeeded(deleted[name]) for name in names), "nobody deletes a topic"

    readable = [name for name in names if "Describe" in found[name]]
    consumer = Consumer(
        user.kafka(group_id=user.group("reader"), enable_partition_eof=True) | {"log_level": 0}
    )
    consumer.assign([TopicPartition(name, 0, 0) for name in readable])
    waiting = set(readable)

    def all_answered() -> bool:
        message = consumer.poll(0.5)
        if message is None:
            return not waiting
        error = message.error()
        if error is None:
            found[message.topic()].add("Read")
        elif error.code() != KafkaError._PARTITION_EOF:
            assert error.code() in UNAUTHORIZED, error
        if message.topic() in waiting:
            waiting.remove(message.topic())
        return not waiting

    eventually(all_answered, 20, "answers about all topics")
    consumer.close()
    return found


def succeeded(future: Any, but: int | None = None) -> bool:
    """Whether a request succeeded, or failed with ``but``; any other failure is a refusal."""
    error = future.exception()
    code = None if error is None else error.args[0].code()
    assert code in (None, but, *UNAUTHORIZED), error
    return code in (None, but)


def commits(user: Settings, group: str) -> bool:
    """Whether a client may commit in this group."""
    admin = AdminClient(user.kafka() | {"log_level": 0})
    offsets = [TopicPartition(Topics.of(user).labelled_pairs, 0, 0)]
    request = [ConsumerGroupTopicPartitions(group, offsets)]
    answer = admin.alter_consumer_group_offsets(request, request_timeout=10)[group]
    return succeeded(answer) and answer.result().topic_partitions[0].error is None


@pytest.mark.parametrize("role", list(ROLES))
def test_a_role_may_do_what_it_needs_and_nothing_else(
    role: RoleName, installed: Settings, secured: SecuredKafka
) -> None:
    user = secured.sasl(principal(installed, role)).of(installed)
    names = list(asdict(Topics.of(installed)).values())
    needed: dict[str, set[str]] = {name: set() for name in names}
    for right in rights(installed, role):
        if right.resource == "topic":
            # Kafka derives it from the others.
            needed[right.name] |= {*right.operations, "Describe"}
    assert allowed_topics(user, names) == needed
    require_rights(user, role)


@pytest.mark.parametrize("way", ["SCRAM-SHA-512", "OAUTHBEARER", "mTLS"])
def test_our_client_publishes_with_the_rights_of_an_agent(
    way: str,
    installed: Settings,
    secured: SecuredKafka,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Configured by variables alone, with the secrets in files."""
    user = principal(installed, "agent")
    settings = (secured.mtls(user) if way == "mTLS" else secured.sasl(user, way)).of(installed)
    for name, value in environment.variables(settings).items():
        if name in environment.secrets(settings):
            (tmp_path / name).write_text(f"{value}\n")
            name, value = f"{name}_FILE", str(tmp_path / name)
        monkeypatch.setenv(name, value)
    with Publisher("agent") as publisher:
        with publisher.trajectory() as trajectory:
            trajectory.search("when was it built", [("d7", 0.5)])
        assert publisher.flush(timeout=20) == 0
        assert (publisher.stats.delivered, publisher.stats.lost) == (2, 0)


def test_only_these_write_what_decides() -> None:
    """The table itself, so that a change of it is a decision."""
    writers: dict[str, set[str]] = {}
    for role, given in ROLES.items():
        for topic, access in given.topics.items():
            if "w" in access:
                writers.setdefault(topic, set()).add(role)
    assert writers["judged_events"] == {"judge"}
    assert writers["labelled_pairs"] == {"mine"}
    assert writers["training_runs"] == {"train"}
    assert writers["retriever_releases"] == {"train", "index", "operator"}
    # The operator withdraws those of erased trajectories.
    assert writers["outcomes"] == {"outcomes", "otlp", "operator"}
    assert writers["erasures"] == {"operator"}
    assert ROLES["agent"].topics == {"trajectory_events": "w"}
    assert not ROLES["agent"].reads


def test_groups_are_separate(installed: Settings, secured: SecuredKafka) -> None:
    """A role joins its own group; the reader's group is described, and never committed to."""
    user = secured.sasl(principal(installed, "train")).of(installed)
    assert commits(user, installed.group("train"))
    for other in ("index", "reader", "judge"):
        assert not commits(user, installed.group(other))


def test_missing_rights_are_named(installed: Settings, secured: SecuredKafka) -> None:
    user = secured.sasl(principal(installed, "agent")).of(installed)
    prefix = installed.topic_prefix
    with pytest.raises(ConfigurationError) as caught:
        require_rights(user, "judge")
    text = str(caught.value)
    assert f"Read on topic {prefix}trajectory-events" in text
    assert f"Write on topic {prefix}judged-events" in text
    assert f"Read on group {prefix}retrail-judge" in text
    assert "Write on topic" in text
    assert "retrail topics acls" in text


def test_a_broker_without_rights_is_trusted(settings: Settings, topics: Topics) -> None:
    for role in ROLES:
        require_rights(settings, role)


def test_commands_for_kafka() -> None:
    text = acls.rendered(Settings(topic_prefix="p_", kafka_bootstrap="k:1"), "kafka")
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith("kafka-acls.sh")]
    judge = [line for line in lines if "User:p_retrail-judge" in line]
    assert [line[line.index("--topic") + 1] for line in judge if "--topic" in line] == [
        "p_trajectory-events",
        "p_judged-events",
        "p_trajectory-events.dlq",
    ]
    assert sum(len(list(rights(Settings(), role))) for role in ROLES) == len(lines)


def test_resources_for_strimzi() -> None:
    import yaml

    settings = Settings(topic_prefix="p_")
    found = list(yaml.safe_load_all(acls.rendered(settings, "strimzi")))
    assert len(found) == len(ROLES)
    for resource, role in zip(found, ROLES, strict=True):
        assert resource["kind"] == "KafkaUser"
        listed = resource["spec"]["authorization"]["acls"]
        assert [
            (one["resource"]["type"], one["resource"]["name"], tuple(one["operations"]))
            for one in listed
        ] == [(one.resource, one.name, one.operations) for one in rights(settings, role)]
