"""Creating the topics, comparing them with their specification, removing an installation's."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from retrail_runtime import kafka
from schemas.errors import BrokerUnavailableError, ConfigurationError, TopicMismatchError
from schemas.settings import Settings
from schemas.topics import Topics, TopicSpec, specs

TIMEOUT = 10.0
"""Seconds for the broker's first answer."""
WORK_TIMEOUT = 30.0
"""Seconds for a broker that answers to create, describe or delete all topics."""

COMPARED = ("cleanup.policy", "retention.ms", "message.timestamp.type", "max.message.bytes")
DEFAULTS = {"message.timestamp.type": "CreateTime"}
"""Kafka's, for what a specification leaves out."""

State = Literal["created", "ok"]


@dataclass(frozen=True, slots=True)
class Actual:
    """A topic on the broker; ``config`` holds at least the :data:`COMPARED` names."""

    name: str
    partitions: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between a topic on the broker and its specification."""

    topic: str
    what: str
    actual: str
    wanted: str

    def __str__(self) -> str:
        """As in the list of a :class:`TopicMismatchError`."""
        return f"{self.topic}: {self.what} is {self.actual}, should be {self.wanted}"


def ensure(settings: Settings) -> list[tuple[str, State]]:
    """Create every topic that is absent and compare every one that exists; safe to repeat.

    Returns:
        Each topic's name, and whether it was created or existed and is ok.

    Raises:
        BrokerUnavailableError: Kafka does not answer within 10 s.
        ConfigurationError: Kafka refuses to create a topic, or the retention of judged-events is
            shorter than a trajectory can be open.
        TopicMismatchError: with all differences at once; absent topics were created all the same.
    """
    require_retention(settings)
    existing = kafka.partition_counts(settings, TIMEOUT)
    admin = kafka.admin(settings)
    wanted = specs(settings)
    absent = [spec for spec in wanted if spec.name not in existing]
    created = _create(admin, absent)
    _await_visible(admin, absent)
    earlier = [spec for spec in wanted if spec.name not in created]
    actual = describe(admin, [spec.name for spec in earlier])
    differences = [found for spec in earlier for found in compare(spec, actual[spec.name])]
    if differences:
        raise TopicMismatchError(_advice(differences), topic=differences[0].topic)
    return [(spec.name, "created" if spec.name in created else "ok") for spec in wanted]


def survey(settings: Settings) -> list[tuple[TopicSpec, Actual | None, list[Difference]]]:
    """Every topic's specification, the topic (``None``: absent), and how they differ.

    Raises:
        BrokerUnavailableError: Kafka does not answer within 10 s.
    """
    existing = kafka.partition_counts(settings, TIMEOUT)
    wanted = specs(settings)
    names = [spec.name for spec in wanted if spec.name in existing]
    actual = describe(kafka.admin(settings), names)
    return [
        (spec, actual[spec.name], compare(spec, actual[spec.name]))
        if spec.name in actual
        else (spec, None, [])
        for spec in wanted
    ]


def remove(settings: Settings) -> list[str]:
    """Delete every topic and consumer group under the topic prefix, of all revisions.

    All members of the groups must have left.

    Returns:
        What was deleted.

    Raises:
        ConfigurationError: there is no prefix, so the installation's topics cannot be identified.
        KafkaException: the broker does not answer or refuses.
    """
    prefix = settings.topic_prefix
    if not prefix:
        raise ConfigurationError("Only an installation with RETRAIL_TOPIC_PREFIX can be removed.")
    admin = kafka.admin(settings)
    found = admin.list_consumer_groups(request_timeout=WORK_TIMEOUT).result().valid
    groups = sorted(one.group_id for one in found if one.group_id.startswith(prefix))
    topics = admin.list_topics(timeout=WORK_TIMEOUT).topics
    names = sorted(name for name in topics if name.startswith(prefix))
    deletions = {}
    if groups:
        deletions.update(admin.delete_consumer_groups(groups, request_timeout=WORK_TIMEOUT))
    if names:
        deletions.update(admin.delete_topics(names, request_timeout=WORK_TIMEOUT))
    gone = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.GROUP_ID_NOT_FOUND)
    for deletion in deletions.values():
        try:
            deletion.result()
        except KafkaException as error:
            if error.args[0].code() not in gone:
                raise
    return groups + names


def require_retention(settings: Settings) -> None:
    """A miner that restarts reads from the oldest open trajectory: its events must still be there.

    Raises:
        ConfigurationError: retention is not above the longest time that a trajectory can be open.
    """
    open_seconds = (
        settings.mine_max_age_seconds + settings.mine_idle_seconds + settings.mine_gap_seconds
    )
    if settings.kafka_retention_hours * 3600 <= open_seconds:
        raise ConfigurationError(
            f"{Topics.of(settings).judged_events} would be kept for "
            f"{settings.kafka_retention_hours:g} h, but a trajectory can be open for "
            f"{open_seconds / 3600:g} h (RETRAIL_MINE_MAX_AGE_SECONDS, RETRAIL_MINE_IDLE_SECONDS "
            "and RETRAIL_MINE_GAP_SECONDS together). Raise RETRAIL_KAFKA_RETENTION_HOURS."
        )


def compare(spec: TopicSpec, actual: Actual) -> list[Difference]:
    """How a topic differs from its specification (replication is left to the operator)."""
    wanted = DEFAULTS | spec.config() | {"partitions": str(spec.partitions)}
    have = {**actual.config, "partitions": str(actual.partitions)}
    return [
        Difference(spec.name, what, have[what], wanted[what])
        for what in ("partitions", *COMPARED)
        if what in wanted and have[what] != wanted[what]
    ]


def retention(spec: TopicSpec) -> str:
    """How long a topic keeps its records, for people."""
    if spec.retention == "compact":
        return "latest of each key"
    if spec.retention == "forever":
        return "unlimited"
    hours = spec.retention_ms / 3_600_000
    return f"{hours / 24:g} days" if hours >= 48 else f"{hours:g} hours"


def describe(admin: AdminClient, names: Iterable[str]) -> dict[str, Actual]:
    """Existing topics as they are on the broker.

    Raises:
        BrokerUnavailableError: the broker does not describe them.
    """
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    if not resources:
        return {}
    metadata = admin.list_topics(timeout=WORK_TIMEOUT).topics
    futures = admin.describe_configs(resources, request_timeout=WORK_TIMEOUT)
    try:
        described = {resource.name: future.result() for resource, future in futures.items()}
    except KafkaException as error:
        raise BrokerUnavailableError(
            f"Kafka does not describe its topics: {error.args[0].str()}. Its user needs the right "
            "DescribeConfigs on them."
        ) from error
    return {
        name: Actual(
            name=name,
            partitions=len(metadata[name].partitions),
            config={option: entry.value for option, entry in config.items()},
        )
        for name, config in described.items()
    }


def _create(admin: AdminClient, absent: list[TopicSpec]) -> set[str]:
    """Create topics; returns those that this call created, not another process meanwhile."""
    if not absent:
        return set()
    futures = admin.create_topics(
        [
            NewTopic(spec.name, spec.partitions, spec.replication, config=spec.config())
            for spec in absent
        ],
        operation_timeout=WORK_TIMEOUT,
        request_timeout=WORK_TIMEOUT,
    )
    created, refused = set(), []
    for name, future in futures.items():
        try:
            future.result()
            created.add(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                refused.append(f"  {name}: {error.args[0].str()}")
    if refused:
        raise ConfigurationError("Kafka refused to create these topics:\n" + "\n".join(refused))
    return created


def _await_visible(admin: AdminClient, specs: list[TopicSpec]) -> None:
    """Return once the broker lists these topics, which takes it a moment."""
    deadline = time.monotonic() + WORK_TIMEOUT
    missing = {spec.name for spec in specs}
    while missing:
        known = admin.list_topics(timeout=WORK_TIMEOUT).topics
        missing -= {name for name in missing if name in known and known[name].partitions}
        if missing and time.monotonic() > deadline:
            raise BrokerUnavailableError(
                f"Kafka created {', '.join(sorted(missing))} but does not list it. Look into the "
                "broker's log, then repeat `retrail topics create`."
            )


def _advice(differences: list[Difference]) -> str:
    lines = "\n".join(f"  {difference}" for difference in differences)
    advice = [f"These topics exist with other settings than Retrail needs:\n{lines}"]
    if any(difference.what == "partitions" for difference in differences):
        advice.append(
            "Partitions are never changed in place: set RETRAIL_PARTITIONS to what is there, or "
            "RETRAIL_TOPIC_PREFIX to a new prefix."
        )
    if any(difference.what != "partitions" for difference in differences):
        advice.append(
            "Settings of a topic: change them with `kafka-configs.sh --alter --entity-type topics "
            "--entity-name TOPIC --add-config NAME=VALUE` (or RETRAIL_KAFKA_RETENTION_HOURS, if "
            "the topic is right), or take a new RETRAIL_TOPIC_PREFIX."
        )
    return "\n".join(advice)
