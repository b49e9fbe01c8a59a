"""Removing an installation's topics and consumer groups, for demos and tests that clean up."""

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from schemas.errors import ConfigurationError
from schemas.settings import Settings

TIMEOUT = 30.0


def remove(settings: Settings) -> list[str]:
    """Delete every topic and consumer group under the topic prefix, of all revisions.

    All members of the groups must have left.

    Returns:
        What was deleted.

    Raises:
        ConfigurationError: there is no prefix, so what belongs to the installation cannot be told.
        KafkaException: the broker does not answer or refuses.
    """
    prefix = settings.topic_prefix
    if not prefix:
        raise ConfigurationError("Only an installation with RETRAIL_TOPIC_PREFIX can be removed.")
    admin = AdminClient({**settings.kafka(), "log_level": 0})
    groups = admin.list_consumer_groups(request_timeout=TIMEOUT).result().valid
    names = sorted(group.group_id for group in groups if group.group_id.startswith(prefix))
    topics = sorted(
        name for name in admin.list_topics(timeout=TIMEOUT).topics if name.startswith(prefix)
    )
    deletions = {}
    if names:
        deletions.update(admin.delete_consumer_groups(names, request_timeout=TIMEOUT))
    if topics:
        deletions.update(admin.delete_topics(topics, request_timeout=TIMEOUT))
    gone = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.GROUP_ID_NOT_FOUND)
    for deletion in deletions.values():
        try:
            deletion.result()
        except KafkaException as error:
            if error.args[0].code() not in gone:
                raise
    return names + topics
