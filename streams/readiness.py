"""Before a worker starts: is Kafka there, and are its topics?"""

import logging

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from schemas.errors import BrokerUnavailable, TopicMismatch
from schemas.settings import Settings

PATIENCE = 10.0


def require_topics(settings: Settings, topics: list[str], patience: float = PATIENCE) -> int:
    """Check that the broker answers and has the topics, keyed alike.

    Args:
        topics: all with the same number of partitions, because a worker keeps the partition.
        patience: seconds to wait for the broker.

    Returns:
        Their number of partitions.

    Raises:
        BrokerUnavailable: nothing answers within ``patience``.
        TopicMismatch: a topic is missing, or the numbers differ.
    """
    quiet = logging.getLogger("streams.readiness.librdkafka")
    quiet.setLevel(logging.CRITICAL)
    admin = AdminClient(settings.kafka(), logger=quiet)
    try:
        found = admin.list_topics(timeout=patience).topics
    except KafkaException as error:
        raise BrokerUnavailable(
            f"Kafka does not answer at {settings.kafka_bootstrap} ({error.args[0].str()}). Start a "
            "local stack with `retrail up`, or set RETRAIL_KAFKA_BOOTSTRAP to your brokers."
        ) from error
    missing = [topic for topic in topics if topic not in found]
    if missing:
        raise TopicMismatch(
            f"There is no topic {', '.join(missing)} at {settings.kafka_bootstrap}. Create them: "
            "retrail topics create"
        )
    numbers = {topic: len(found[topic].partitions) for topic in topics}
    if len(set(numbers.values())) > 1:
        listed = ", ".join(f"{topic} has {number}" for topic, number in numbers.items())
        raise TopicMismatch(
            f"These topics need the same number of partitions: {listed}. Use a new "
            "RETRAIL_TOPIC_PREFIX and `retrail topics create`."
        )
    return next(iter(numbers.values()))
