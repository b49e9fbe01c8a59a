"""Outputs leave as batches of one partition, in aiokafka's own format."""

from typing import Any

from streams.loop.faust_private import TransportApp
from streams.loop.outbox import Batch, Output


class KafkaBatch:
    """Records for one partition."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def append(self, output: Output) -> bool:
        """Whether the record still fitted in; the first one always does."""
        added = self.builder.append(
            timestamp=None, key=output.key, value=output.value, headers=list(output.headers)
        )
        return added is not None


class KafkaChannel:
    """A :class:`streams.loop.outbox.Channel` over Faust's producer."""

    def __init__(self, app: TransportApp, topic: str, partition: int) -> None:
        self._app = app
        self._topic = topic
        self._partition = partition

    def new_batch(self) -> KafkaBatch:
        """An empty batch."""
        return KafkaBatch(self._app.kafka_producer.create_batch())

    async def send(self, batch: Batch) -> None:
        """Returns when every in-sync replica has the batch.

        Raises:
            KafkaError: it never will be there, for instance because it is too large.
        """
        assert isinstance(batch, KafkaBatch)
        # A closed batch does not linger.
        batch.builder.close()
        producer = self._app.kafka_producer
        await (await producer.send_batch(batch.builder, self._topic, partition=self._partition))
