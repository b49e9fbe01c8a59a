"""Creates the topics, compares them with their specifications, and removes an installation's."""

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
from schemas.topics import SAFE_REPLICAS, Topics, TopicSpec, specs

TIMEOUT = 10.0
"""Seconds for the broker's first answer."""
WORK_TIMEOUT = 30.0
"""Seconds for a broker that answers to create, describe or delete all topics."""

COMPARED = ("cleanup.policy", "retention.ms", "message.timestamp.type", "max.message.bytes")
DEFAULTS = {"message.timestamp.type": "CreateTime"}
"""Kafka's defaults for configuration that a specification omits."""

State = Literal["created", "ok"]


Actual = Mapping[str, str]
"""A topic on the broker: its configuration, and its number of ``partitions``."""


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


Surveyed = tuple[TopicSpec, Actual | None, list[Difference]]


def ensure(settings: Settings) -> list[tuple[str, State]]:
    """Create the absent topics and compare the others with their specifications; idempotent.

    Returns:
        Each topic's name, and whether it was created or existed and is ok.

    Raises:
        BrokerUnavailableError: Kafka does not answer within 10 s.
        ConfigurationError: Kafka refuses to create a topic, or the retention of judged-events is
            shorter than a trajectory can be open.
        TopicMismatchError: names all differences; absent topics were created.
    """
    require_retention(settings)
    admin = kafka.admin(settings)
    found = survey(settings)
    missing = {spec.name for spec, actual, _ in found if actual is None}
    absent = [one for one in specs(settings, brokers(settings)) if one.name in missing]
    created = _create(admin, absent)
    _await_visible(admin, absent)
    if len(created) < len(absent):
        found = survey(settings)
    if any(differences for _, _, differences in found):
        raise TopicMismatchError(advice(found, settings))
    return [(spec.name, "created" if spec.name in created else "ok") for spec, *_ in found]


def brokers(settings: Settings) -> int:
    """Number of brokers of the cluster.

    Raises:
        BrokerUnavailableError: Kafka does not answer.
        ConfigurationError: Kafka refuses the connection.
    """
    return len(kafka.Probe(settings).metadata(TIMEOUT).brokers)


def replication_warning(settings: Settings, number: int) -> str:
    """What the loss of a broker costs with these replicas; empty if nothing.

    Args:
        number: of brokers.
    """
    replicas = specs(settings, number)[0].replication
    if replicas >= SAFE_REPLICAS:
        return ""
    how = (
        "Set RETRAIL_REPLICATION=3"
        if number >= SAFE_REPLICAS
        else "Use a cluster of three brokers or more"
    )
    return (
        f"New topics have {replicas} of {SAFE_REPLICAS} replicas: records are lost with the disk "
        f"of a broker, and workers wait while it is down. {how} for data that must be kept."
    )


def survey(settings: Settings) -> list[Surveyed]:
    """Every topic's specification, the topic (``None``: absent), and how they differ.

    Raises:
        BrokerUnavailableError: Kafka does not answer within 10 s.
        ConfigurationError: Kafka refuses the connection, or to describe a topic.
    """
    wanted = specs(settings)
    existing = kafka.partition_counts(settings, TIMEOUT, [spec.name for spec in wanted])
    names = [spec.name for spec in wanted if spec.name in existing]
    actual = describe(kafka.admin(settings), names)
    return [(spec, actual.get(spec.name), compare(spec, actual.get(spec.name))) for spec in wanted]


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
    """Check that what open trajectories and traces need is retained for workers that restart.

    Raises:
        ConfigurationError: retention is not above the longest time that one can be open.
    """
    open_seconds = (
        settings.mine_max_age_seconds + settings.mine_idle_seconds + settings.mine_gap_seconds
    )
    if settings.kafka_retention_hours * 3600 <= open_seconds:
        raise ConfigurationError(
            f"{Topics.of(settings).judged_events} would be retained for "
            f"{settings.kafka_retention_hours:g} h, but a trajectory can be open for "
            f"{open_seconds / 3600:g} h (RETRAIL_MINE_MAX_AGE_SECONDS, RETRAIL_MINE_IDLE_SECONDS "
            "and RETRAIL_MINE_GAP_SECONDS together). Raise RETRAIL_KAFKA_RETENTION_HOURS."
        )
    # A trace is remembered as long again as it can be open.
    traced_seconds = 2 * (
        settings.mine_max_age_seconds + settings.otlp_quiet_seconds + settings.otlp_root_seconds
    )
    if settings.kafka_retention_hours * 3600 <= traced_seconds:
        raise ConfigurationError(
            f"{Topics.of(settings).agent_spans} would be retained for "
            f"{settings.kafka_retention_hours:g} h, but a trace can be needed for "
            f"{traced_seconds / 3600:g} h (twice RETRAIL_MINE_MAX_AGE_SECONDS, "
            "RETRAIL_OTLP_QUIET_SECONDS and RETRAIL_OTLP_ROOT_SECONDS together). Raise "
            "RETRAIL_KAFKA_RETENTION_HOURS."
        )


def compare(spec: TopicSpec, actual: Actual | None) -> list[Difference]:
    """How a topic differs from its specification (replication is left to the operator)."""
    if actual is None:
        return []
    wanted = DEFAULTS | spec.config() | {"partitions": str(spec.partitions)}
    return [
        Difference(spec.name, what, actual[what], wanted[what])
        for what in ("partitions", *COMPARED)
        if what in wanted and actual[what] != wanted[what]
    ]


def retention(spec: TopicSpec) -> str:
    """How long a topic retains its records, as tables show it."""
    if spec.retention == "compact":
        return "latest of each key"
    if spec.retention == "unlimited":
        return "unlimited"
    hours = spec.retention_ms / 3_600_000
    return f"{hours / 24:g} days" if hours >= 48 else f"{hours:g} hours"


def describe(admin: AdminClient, names: Iterable[str]) -> dict[str, Actual]:
    """The state of topics on the broker.

    Raises:
        BrokerUnavailableError: the broker does not describe them.
        ConfigurationError: the user may not.
    """
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    if not resources:
        return {}
    metadata = admin.list_topics(timeout=WORK_TIMEOUT).topics
    futures = admin.describe_configs(resources, request_timeout=WORK_TIMEOUT)
    try:
        described = {resource.name: future.result() for resource, future in futures.items()}
    except KafkaException as error:
        message = f"Kafka does not describe its topics: {kafka.error_message(error)}"
        raise kafka.failure(error.args[0], message) from error
    return {
        name: {option: entry.value for option, entry in config.items()}
        | {"partitions": str(len(metadata[name].partitions))}
        for name, config in described.items()
    }


def _create(admin: AdminClient, absent: list[TopicSpec]) -> set[str]:
    """Create topics; returns those that this call, not another process, created."""
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
                refused.append(f"  {name}: {kafka.error_message(error)}")
    if refused:
        raise ConfigurationError("Kafka refused to create these topics:\n" + "\n".join(refused))
    return created


def _await_visible(admin: AdminClient, specs: list[TopicSpec]) -> None:
    """Return once the broker lists these topics."""
    deadline = time.monotonic() + WORK_TIMEOUT
    missing = {spec.name for spec in specs}
    while missing:
        known = admin.list_topics(timeout=WORK_TIMEOUT).topics
        missing -= {name for name in missing if name in known and known[name].partitions}
        if missing and time.monotonic() > deadline:
            raise BrokerUnavailableError(
                f"Kafka created {', '.join(sorted(missing))} but does not list it. Check "
                "the log of the broker, then repeat `retrail topics create`."
            )


def advice(found: Iterable[Surveyed], settings: Settings) -> str:
    """The differences between the topics and their specifications, and what to do about them."""
    found = list(found)
    differences = [difference for _, _, some in found for difference in some]
    lines = "\n".join(f"  {difference}" for difference in differences)
    parts = [f"These topics exist with other settings than Retrail needs:\n{lines}"]
    if any(difference.what == "partitions" for difference in differences):
        counts = {
            actual["partitions"]
            for spec, actual, _ in found
            if actual is not None and spec.partitions == settings.partitions
        }
        single = any(d.what == "partitions" and d.wanted == "1" for d in differences)
        if len(counts) == 1 and (settings.partitions == 1 or not single):
            (count,) = counts
            parts.append(
                f"Set RETRAIL_PARTITIONS={count}, which these topics have, or set "
                "RETRAIL_TOPIC_PREFIX to a new prefix."
            )
        else:
            parts.append(
                "The number of partitions cannot be changed: the records of a trajectory would be "
                "on two partitions, and Kafka cannot remove partitions again. Set "
                "RETRAIL_TOPIC_PREFIX to a new prefix, and load documents and publish "
                "trajectories again."
            )
    if any(difference.what != "partitions" for difference in differences):
        parts.append(
            "Change the configuration of a topic with `kafka-configs.sh --alter --entity-type "
            "topics --entity-name TOPIC --add-config NAME=VALUE` (or set "
            "RETRAIL_KAFKA_RETENTION_HOURS to what the topic has), or set RETRAIL_TOPIC_PREFIX to "
            "a new prefix."
        )
    return "\n".join(parts)
