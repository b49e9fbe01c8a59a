"""Which trainer is active: the one that owns the partition of ``training-runs``.

All trainers are members of one consumer group, and the oldest owns the partition: librdkafka's
range assignor gives the only partition to the member whose id sorts first, and an id begins with
the client's. So a second trainer stands by, and never interrupts a run. ``retrail train`` sorts
before every worker: it takes the partition for its one run and hands it back by leaving.
"""

import secrets
import time
from typing import Literal

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from consumers import metrics
from retrail_runtime import kafka
from schemas.errors import RestartRequiredError
from schemas.settings import Settings
from schemas.topics import Topics

log = structlog.get_logger(__name__)

Role = Literal["now", "worker"]

_RANK: dict[Role, int] = {"now": 0, "worker": 1}

MAX_POLL_SECONDS = 300.0
"""A trainer that does not poll for so long loses the partition."""


class Ownership:
    """Membership in the group ``train``; :meth:`poll` keeps it.

    Attributes:
        owned: whether this trainer is the active one.
        joined: whether the group has answered, be it with the partition or without.
    """

    def __init__(self, settings: Settings, role: Role) -> None:
        self.owned = False
        self.joined = False
        self._topic = Topics.of(settings).training_runs
        self._consumer = kafka.consumer(
            settings,
            settings.group("train"),
            client_id=f"{_RANK[role]}-{role}-{time.time_ns():020}-{secrets.token_hex(2)}",
            partition_assignment_strategy="range",
            max_poll_interval_ms=int(MAX_POLL_SECONDS * 1000),
        )
        self._consumer.subscribe(
            [self._topic],
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._revoked,
        )

    def poll(self, timeout: float) -> bool:
        """Take part in the group for ``timeout`` seconds; returns whether the partition is owned.

        Raises:
            RestartRequiredError: the group refuses this member.
        """
        try:
            message = self._consumer.poll(timeout)
        except KafkaException as error:
            raise RestartRequiredError(f"The trainers' group failed: {error}") from error
        failure = message.error() if message is not None else None
        if failure is not None:
            raise RestartRequiredError(f"The trainers' group failed: {failure.str()}")
        return self.owned

    def close(self) -> None:
        """Leave the group, so that the next trainer takes over at once."""
        self._consumer.close()
        self._set(False)

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.assign(partitions)
        # The partition is only a token here: manifests are read where they are needed.
        consumer.pause(partitions)
        self.joined = True
        self._set(bool(partitions))

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._set(False)

    def _set(self, owned: bool) -> None:
        if owned != self.owned:
            self.owned = owned
            log.info("this trainer is active" if owned else "this trainer stands by")
        metrics.TRAINER_ACTIVE.set(owned)


def someone_trains(settings: Settings) -> bool:
    """Whether the group has a member; ``False`` too on a broker that cannot tell."""
    group = settings.group("train")
    # In a variable until the answer is here: a client that nothing refers to takes it to its grave.
    admin = kafka.admin(settings)
    try:
        answer = admin.describe_consumer_groups([group], request_timeout=10)
        return bool(answer[group].result().members)
    except KafkaException as error:
        log.debug("the broker tells nothing about groups", group=group, error=str(error))
        return False
