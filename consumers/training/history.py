"""The history that a trainer decides by: ``training-runs`` and ``retriever-releases``."""

from dataclasses import replace

from confluent_kafka import Producer

from consumers import releases
from consumers.errors import StoppedError
from retrail_runtime import kafka
from schemas import runs
from schemas.errors import InvalidRecordError
from schemas.runs import RunManifest
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.data import lineage
from trainer.data.lineage import History
from trainer.data.releases import Releases
from trainer.registry.registry import Registry


class RunHistory:
    """Reads the history as it grows, and adds manifests to it; for one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = Topics.of(settings).training_runs
        self._next = 0
        self._releases = Releases()
        self.history = History()

    def refresh(self) -> History:
        """The history as of now.

        Raises:
            BrokerUnavailableError, TopicMismatchError: from Kafka.
            RegistryError: see :meth:`_without_foreign_live`.
        """
        records = list(kafka.read_to_end(self._settings, self._topic, {0: self._next}))
        # After the manifests: the parent of each was released before it.
        self._releases = releases.read(self._settings, self._releases)
        history = replace(self.history, releases=self._releases)
        for record in records:
            self._next = record.offset + 1
            try:
                manifest = runs.decode(record.value)
                problem = history.refusal(manifest)
                history = history.announced(manifest)
            except InvalidRecordError as error:
                problem = str(error)
            if problem:
                releases.report_refused("runs", self._topic, record.offset, record.key, problem)
        self.history = self._without_foreign_live(history)
        return self.history

    def _without_foreign_live(self, history: History) -> History:
        """``history``, its ``live`` the last one that names a release of this installation.

        A release whose run was never announced, and whose model is not in the registry, comes from
        another program. Where the model is there, the topic of the runs was recreated.

        Raises:
            RegistryError: the registry does not answer.
        """
        known = history.releases
        if known.live is None:
            return history
        for live, offset in reversed([*known.earlier, (known.live, known.live_offset)]):
            unknown = [
                release
                for release in lineage.without_run(history, live.version)
                if not Registry.of(self._settings).holds(release.model)
            ]
            if not unknown:
                return replace(history, releases=replace(known, live=live, live_offset=offset))
            why = (
                f"live names release {live.version}, but the run of release {unknown[0].version} "
                "was never announced and its model is not in the registry"
            )
            topic = Topics.of(self._settings).retriever_releases
            releases.report_refused("releases", topic, offset, b"live", why)
        return replace(history, releases=replace(known, live=None, live_offset=-1))

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
