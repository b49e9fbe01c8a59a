"""The history that a trainer decides by: ``training-runs`` and ``retriever-releases``."""

import structlog
from confluent_kafka import Producer

from consumers import metrics, releases
from retrail_runtime import kafka
from schemas.errors import TopicMismatchError
from schemas.runs import RunManifest, version_of
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.data.lineage import History, Run

log = structlog.get_logger(__name__)


class Ledger:
    """Reads the history as it grows, and adds manifests to it; for one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = Topics.of(settings).training_runs
        self._next = 0
        self.history = History((), releases.Releases())

    def refresh(self) -> History:
        """The history as of now.

        Raises:
            BrokerUnavailableError, TopicMismatchError: from Kafka.
        """
        runs = list(self.history.runs)
        for record in kafka.read_to_end(self._settings, self._topic, {0: self._next}):
            self._next = record.offset + 1
            manifest = _read(record)
            if manifest is not None:
                runs.append(Run(record.offset, manifest.run_id, manifest.parent, manifest.ranges))
        known = releases.read(self._settings, self.history.releases)
        self.history = History(tuple(runs), known)
        metrics.LIVE_VERSION.set(known.live.version if known.live else 0)
        return self.history

    def manifest(self, run: Run) -> RunManifest:
        """The manifest of a run, whole."""
        for record in kafka.read_to_end(self._settings, self._topic, {0: run.offset}):
            manifest = _read(record)
            if record.offset == run.offset and manifest is not None:
                return manifest
        raise TopicMismatchError(
            f"{self._topic} lost the manifest of run {run.run_id} at offset {run.offset}: the "
            "topic was recreated. Start anew with another RETRAIL_TOPIC_PREFIX."
        )

    def announce(self, producer: Producer, manifest: RunManifest) -> Run:
        """Put a manifest on the topic; returns the run, whose version follows from its offset.

        Raises:
            DeliveryError: it may or may not be on the topic. If it is, the next
                :meth:`refresh` shows it, and the run goes on from there.
            TopicMismatchError: training-runs is younger than the releases.
        """
        offset = kafka.publish_and_wait(producer, self._topic, value=manifest.to_json())
        run = self.refresh().run(manifest.run_id)
        assert run is not None
        if version_of(offset) in self.history.releases.by_version:
            raise TopicMismatchError(
                f"{self._topic} was recreated: offset {offset} stands for release "
                f"{version_of(offset)}, which exists. Start anew with another "
                "RETRAIL_TOPIC_PREFIX."
            )
        return run


def _read(record: kafka.Record) -> RunManifest | None:
    try:
        return RunManifest.model_validate_json(record.value or b"")
    except ValueError as error:
        metrics.INVALID_RECORDS.labels(stage="runs").inc()
        log.warning(
            "malformed manifest passed over",
            offset=record.offset,
            error=releases.complaint(error),
        )
        return None
