"""What the topic ``retriever-releases`` says, moment by moment."""

from confluent_kafka import KafkaException, TopicPartition

from consumers import releases
from retrail_runtime import kafka
from schemas.errors import BrokerUnavailableError, RestartRequiredError
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.data.releases import Releases


class ReleaseWatch:
    """Follows the releases without being a member of a group; for one thread."""

    def __init__(self, settings: Settings) -> None:
        """Read what there is.

        Raises:
            BrokerUnavailableError, TopicMismatchError: from Kafka.
        """
        self._known = releases.read(settings)
        self._reader = kafka.consumer(settings)
        topic = Topics.of(settings).retriever_releases
        self._reader.assign([TopicPartition(topic, 0, self._known.next_offset)])

    def now(self) -> Releases:
        """All releases and ``live``, as far as they have arrived.

        Raises:
            RestartRequiredError: reading failed.
        """
        try:
            messages = kafka.ready(self._reader, 0)
            records = [kafka.record(message) for message in messages]
        except (BrokerUnavailableError, KafkaException) as error:
            raise RestartRequiredError(f"Following the releases failed: {error}") from error
        if records:
            self._known = releases.follow(self._known, records)
        return self._known

    def close(self) -> None:
        """Leave Kafka."""
        self._reader.close()
