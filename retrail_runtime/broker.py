"""Before anything starts: does Kafka answer, and has it the topics?"""

import logging
from collections.abc import Iterable

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from schemas.errors import BrokerUnavailableError, TopicMismatchError
from schemas.settings import Settings
from schemas.topics import specs


def require_broker(
    settings: Settings,
    topics: Iterable[str] | None = None,
    *,
    keyed_alike: bool = False,
    timeout: float = 10.0,
) -> dict[str, int]:
    """Fail fast if Kafka does not answer, or lacks topics.

    Args:
        topics: those that the caller needs; by default all of the installation.
        keyed_alike: they must have the same number of partitions, because the caller writes to the
            partition that it reads.
        timeout: seconds to wait for an answer.

    Returns:
        Number of partitions of each topic in ``topics``.

    Raises:
        BrokerUnavailableError: nothing answers at the bootstrap address.
        TopicMismatchError: topics do not exist, or their numbers of partitions differ.
    """
    wanted = [spec.name for spec in specs(settings)] if topics is None else list(topics)
    # What librdkafka would log is in the exception.
    quiet = logging.getLogger("retrail_runtime.broker.librdkafka")
    quiet.setLevel(logging.CRITICAL)
    try:
        found = AdminClient(settings.kafka(), logger=quiet).list_topics(timeout=timeout).topics
    except KafkaException as error:
        raise BrokerUnavailableError(
            f"Kafka does not answer at {settings.kafka_bootstrap} ({error.args[0].str()}). Start a "
            "local stack with `retrail up`, or set RETRAIL_KAFKA_BOOTSTRAP to a broker that runs."
        ) from error
    missing = [name for name in wanted if name not in found]
    if missing:
        raise TopicMismatchError(
            f"Kafka at {settings.kafka_bootstrap} has no topic {', '.join(missing)}. Create what "
            "is missing with `retrail topics create`."
        )
    numbers = {name: len(found[name].partitions) for name in wanted}
    if keyed_alike and len(set(numbers.values())) > 1:
        listed = ", ".join(f"{name} has {number}" for name, number in numbers.items())
        raise TopicMismatchError(
            f"These topics need the same number of partitions: {listed}. Use a new "
            "RETRAIL_TOPIC_PREFIX and `retrail topics create`."
        )
    return numbers
