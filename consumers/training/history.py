"""The history that a trainer decides by: ``training-runs`` and ``retriever-releases``."""

from dataclasses import replace

import structlog
from confluent_kafka import Producer

from consumers import releases
from consumers.errors import StoppedError
from consumers.training import metrics
from retrail_runtime import kafka
from retrail_runtime.metrics import INVALID_RECORDS
from schemas import runs
from schemas.errors import InvalidRecordError
from schemas.runs import RunManifest
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.data.lineage import History

log = structlog.get_logger(__name__)


class RunHistory:
    """Reads the history as it grows, and adds manifests to it; for one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = Topics.of(settings).training_runs
        self._next = 0
        self.history = History()

    def refresh(self) -> History:
        """The history as of now.

        Raises:
            BrokerUnavailableError, TopicMismatchError: from Kafka.
        """
        history = self.history
        for record in kafka.read_to_end(self._settings, self._topic, {0: self._next}):
            self._next = record.offset + 1
            try:
                history = history.announced(runs.decode(record.value))
            except InvalidRecordError as error:
                INVALID_RECORDS.labels(stage="runs").inc()
                log.warning("invalid manifest", offset=record.offset, error=str(error))
        known = releases.read(self._settings, history.releases)
        self.history = replace(history, releases=known)
        metrics.LIVE_VERSION.set(known.live.version if known.live else 0)
        return self.history

    def announce(self, producer: Producer, manifest: RunManifest) -> None:
        """Put a manifest on the topic.

        Raises:
            DeliveryError: it may or may not be on the topic. If it is, the next :meth:`refresh`
                shows it, and the run goes on from there.
            StoppedError: another trainer announced a run of this version before.
        """
        key, value = runs.encode(manifest)
        kafka.publish_and_wait(producer, self._topic, key=key, value=value)
        if self.refresh().run(manifest.run_id) != manifest:
            raise StoppedError(
                f"Another trainer announced version {manifest.version} first.",
                topic=self._topic,
                version=manifest.version,
            )
