"""Topics on a real broker: created once, compared ever after."""

import re

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from deploy.processes import free_ports
from deploy.topics import (
    brokers,
    describe,
    ensure,
    remove,
    replication_warning,
    require_retention,
    survey,
)
from schemas.errors import BrokerUnavailableError, ConfigurationError, TopicMismatchError
from schemas.settings import Settings
from schemas.topics import Topics, specs
from tests.waiting import eventually


def test_creates_every_topic_once(settings: Settings) -> None:
    names = [spec.name for spec in specs(settings)]

    assert ensure(settings) == [(name, "created") for name in names]
    assert ensure(settings) == [(name, "ok") for name in names]


def test_broker_has_what_the_contract_says(settings: Settings) -> None:
    ensure(settings)
    actual = describe(AdminClient(settings.kafka()), [spec.name for spec in specs(settings)])
    names = Topics.of(settings)

    assert actual[names.trajectory_events]["partitions"] == "2"
    assert actual[names.trajectory_events]["message.timestamp.type"] == "LogAppendTime"
    assert actual[names.trajectory_events]["retention.ms"] == str(30 * 24 * 3600 * 1000)
    assert actual[names.labelled_pairs]["retention.ms"] == "-1"
    assert actual[names.documents]["cleanup.policy"] == "compact"
    assert actual[names.documents]["delete.retention.ms"] == str(7 * 24 * 3600 * 1000)
    assert actual[names.training_runs]["partitions"] == "1"


def test_all_mismatches_are_in_one_error(settings: Settings) -> None:
    names = Topics.of(settings)
    admin = AdminClient(settings.kafka())
    made = admin.create_topics(
        [
            NewTopic(names.trajectory_events, 5, 1),
            NewTopic(names.documents, 2, 1, config={"max.message.bytes": "1000"}),
        ]
    )
    for future in made.values():
        future.result()

    with pytest.raises(TopicMismatchError) as caught:
        ensure(settings)

    message = str(caught.value)
    for expected in (
        f"{names.trajectory_events}: partitions is 5, should be 2",
        f"{names.trajectory_events}: message.timestamp.type is CreateTime",
        f"{names.trajectory_events}: retention.ms is 604800000, should be 2592000000",
        f"{names.documents}: cleanup.policy is delete, should be compact",
        f"{names.documents}: max.message.bytes is 1000, should be 4194304",
        "RETRAIL_TOPIC_PREFIX",
    ):
        assert expected in message
    present = [spec.name for spec, actual, _ in survey(settings) if actual is not None]
    assert present == [spec.name for spec in specs(settings)]


def partitioned(settings: Settings, admin: AdminClient, **counts: int) -> str:
    """Creates topics with these numbers of partitions; returns why `ensure` refuses them."""
    names = Topics.of(settings)
    made = [NewTopic(getattr(names, name), count, 1) for name, count in counts.items()]
    for future in admin.create_topics(made).values():
        future.result()
    with pytest.raises(TopicMismatchError) as caught:
        ensure(settings)
    return str(caught.value)


def test_topics_of_another_partition_count_name_the_setting(settings: Settings) -> None:
    earlier = settings.model_copy(update={"partitions": 3})
    ensure(earlier)
    with pytest.raises(TopicMismatchError, match=r"partitions is 3, should be 2") as caught:
        ensure(settings)
    assert "Set RETRAIL_PARTITIONS=3, which these topics have" in str(caught.value)
    assert ensure(earlier)


def test_partitions_that_were_added_are_refused_with_advice(settings: Settings) -> None:
    ensure(settings)
    admin = AdminClient(settings.kafka())
    names = Topics.of(settings)
    added = admin.create_partitions([NewPartitions(names.judged_events, 4)])
    added[names.judged_events].result()
    eventually(
        lambda: describe(admin, [names.judged_events])[names.judged_events]["partitions"] == "4",
        what="the new partitions",
    )
    with pytest.raises(TopicMismatchError) as caught:
        ensure(settings)
    assert f"{names.judged_events}: partitions is 4, should be 2" in str(caught.value)
    assert "cannot be changed" in str(caught.value)
    assert "RETRAIL_TOPIC_PREFIX to a new prefix" in str(caught.value)
    assert "RETRAIL_PARTITIONS" not in str(caught.value)


def test_a_topic_of_one_partition_needs_a_new_prefix(settings: Settings) -> None:
    admin = AdminClient(settings.kafka())
    message = partitioned(settings, admin, training_runs=2)
    assert "partitions is 2, should be 1" in message
    assert "RETRAIL_TOPIC_PREFIX to a new prefix" in message
    assert "RETRAIL_PARTITIONS" not in message


def test_survey_of_nothing(settings: Settings) -> None:
    assert [(actual, found) for _, actual, found in survey(settings)] == [(None, [])] * len(
        specs(settings)
    )


@pytest.mark.parametrize(
    ("hours", "short"),
    [(6.5, "judged-events"), (6.508, "judged-events"), (6.51, "agent-spans"), (12.1, "")],
)
def test_retention_exceeds_the_oldest_trajectory(hours: float, short: str) -> None:
    settings = Settings(kafka_retention_hours=hours)  # open for 6 h + 30 min + 30 s at most
    if not short:
        require_retention(settings)
        return
    with pytest.raises(ConfigurationError, match=rf"{short} .*RETRAIL_KAFKA_RETENTION_HOURS"):
        require_retention(settings)


def test_broker_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.topics.TIMEOUT", 1.0)
    address = f"127.0.0.1:{free_ports(1)[0]}"

    with pytest.raises(BrokerUnavailableError, match=re.escape(address)):
        ensure(Settings(kafka_bootstrap=address))


def test_removes_one_installation_and_leaves_others(settings: Settings, topics: Topics) -> None:
    other = settings.model_copy(update={"topic_prefix": f"other_{settings.topic_prefix}"})
    ensure(other)
    group = settings.group("mine")
    consumer = Consumer(settings.kafka(group_id=group))
    consumer.commit(offsets=[TopicPartition(topics.judged_events, 0, 0)], asynchronous=False)
    consumer.close()

    removed = remove(settings)

    assert set(removed) == {group} | {spec.name for spec in specs(settings)}
    admin = AdminClient(settings.kafka())

    def left() -> set[str]:
        return {name for name in admin.list_topics(timeout=10).topics if name in removed}

    eventually(lambda: not left(), what="end of the topics")
    assert Topics.of(other).documents in admin.list_topics(timeout=10).topics
    assert remove(settings) == []
    remove(other)


def test_needs_a_prefix() -> None:
    with pytest.raises(ConfigurationError, match="RETRAIL_TOPIC_PREFIX"):
        remove(Settings())


@pytest.mark.parametrize(
    ("given", "number", "replicas", "in_sync"),
    [(None, 1, 1, None), (None, 2, 1, None), (None, 3, 3, "2"), (None, 7, 3, "2"), (1, 5, 1, None)],
)
def test_replicas_follow_the_number_of_brokers(
    given: int | None, number: int, replicas: int, in_sync: str | None
) -> None:
    settings = Settings(replication=given)
    for spec in specs(settings, number):
        assert spec.replication == replicas
        assert spec.config().get("min.insync.replicas") == in_sync
    warning = replication_warning(settings, number)
    assert bool(warning) == (replicas < 3)
    assert ("RETRAIL_REPLICATION=3" in warning) == (given == 1)


def test_the_brokers_are_counted(settings: Settings) -> None:
    assert brokers(settings) == 1
