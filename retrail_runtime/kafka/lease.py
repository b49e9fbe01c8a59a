"""Leader election through a Kafka consumer group: one lease for each topic and group.

All candidates are members of one group that subscribes to a topic with one partition, and the
partition's owner holds the lease. The oldest member owns it: Kafka's range assignor gives the only
partition to the member whose id sorts first, and a member id begins with the client id. So a second
candidate stands by and never interrupts the first. A candidate with a lower ``rank`` sorts before
all others: it takes the lease at once, and returns it when it leaves.

A lease is no fence: for a moment two processes may hold it. What a holder writes must therefore be
idempotent.
"""

import secrets
import time
from typing import Any

import structlog
from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from retrail_runtime import kafka
from schemas.errors import ConfigurationError, RestartRequiredError, RetrailError
from schemas.settings import Settings

log = structlog.get_logger(__name__)

MAX_POLL_SECONDS = 300.0
"""A holder loses the lease after this time without a poll."""


class Lease:
    """Membership in a group; :meth:`poll` keeps it. For one thread; others may read ``held``.

    Attributes:
        held: whether this process holds the lease.
        joined: whether the group has answered, with the lease or without.
    """

    def __init__(self, settings: Settings, topic: str, group: str, *, rank: int = 1) -> None:
        """Join the group.

        Args:
            topic: with one partition.
            group: full group id (``settings.group(…)``).
            rank: 0 to 9; the lowest goes first, and among equals the oldest.
        """
        self.held = False
        self.joined = False
        self._group = group
        self._member = kafka.consumer(
            settings,
            group,
            client_id=f"{rank}-{time.time_ns():020}-{secrets.token_hex(2)}",
            partition_assignment_strategy="range",
            max_poll_interval_ms=int(MAX_POLL_SECONDS * 1000),
            heartbeat_interval_ms=500,
        )
        self._member.subscribe(
            [topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )

    def poll(self, timeout: float = 0.0) -> bool:
        """Poll the group for ``timeout`` seconds; returns whether the lease is held.

        Raises:
            RestartRequiredError: the group or its topic failed.
            ConfigurationError: a right is missing.
        """
        try:
            message = self._member.poll(timeout)
        except KafkaException as error:
            raise self._failed(error.args[0]) from error
        failure = message.error() if message is not None else None
        # Polled too late: the lease is lost, and the member rejoins.
        if failure is not None and failure.code() != KafkaError._MAX_POLL_EXCEEDED:
            raise self._failed(failure)
        return self.held

    def close(self) -> None:
        """Leave the group, so that the next member takes the lease at once."""
        self._member.close()
        self._set(False)

    def _failed(self, error: KafkaError) -> RetrailError:
        message = f"Consumer group {self._group} failed: {kafka.message_of(error)}"
        refusal = kafka.failure(error, message)
        return refusal if isinstance(refusal, ConfigurationError) else RestartRequiredError(message)

    def _assigned(self, member: Consumer, partitions: list[TopicPartition]) -> None:
        member.assign(partitions)
        # Only the ownership matters: the records are read elsewhere.
        member.pause(partitions)
        self.joined = True
        self._set(bool(partitions))

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._set(False)

    def _set(self, held: bool) -> None:
        if held != self.held:
            self.held = held
            log.info("lease acquired" if held else "lease released", group=self._group)


def has_members(settings: Settings, group: str) -> bool:
    """Whether a group has members; ``False`` also if the broker does not answer."""
    # The request ends with its client, so keep a reference.
    admin = kafka.admin(settings)
    found = _described(admin, group)
    return found is not None and bool(found.members)


def owners(admin: AdminClient, group: str) -> dict[int, str] | None:
    """The member of a group that owns each partition of its one topic.

    ``None`` during a rebalance, and if the broker does not answer. A member that was removed from
    the group has another id when it comes back.
    """
    found = _described(admin, group)
    if found is None or found.state != ConsumerGroupState.STABLE:
        return None
    return {
        one.partition: member.member_id
        for member in found.members
        for one in member.assignment.topic_partitions
    }


def _described(admin: AdminClient, group: str) -> Any:
    """A group as the broker describes it; ``None`` if it does not answer."""
    try:
        return admin.describe_consumer_groups([group], request_timeout=10)[group].result()
    except KafkaException as error:
        log.debug("cannot describe group", group=group, error=str(error))
        return None
