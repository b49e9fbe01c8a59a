"""The history of runs and releases: ``training-runs`` and ``retriever-releases``."""

from dataclasses import replace

from confluent_kafka import Producer

from consumers import releases
from consumers.tasks import StoppedError
from retrail_runtime import kafka
from schemas import runs
from schemas.errors import InputError, InvalidRecordError
from schemas.runs import RunManifest
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.data import lineage
from trainer.data.lineage import History
from trainer.data.releases import Releases
from trainer.registry.registry import Registry

SHOWN = 5
"""Number of latest runs that are listed."""


class RunHistory:
    """Reads the history incrementally and adds manifests; not thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = Topics.of(settings).training_runs
        self._next = 0
        self._releases = Releases()
        self.history = History()

    def refresh(self) -> History:
        """The current history.

        Raises:
            BrokerUnavailableError, TopicMismatchError: from Kafka.
            RegistryError: see :meth:`_without_foreign_live`.
        """
        records = list(kafka.read_to_end(self._settings, self._topic, {0: self._next}))
        # Read after the manifests, so that the parent of every manifest is known.
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
        """``history`` with the last ``live`` that names a release of this installation.

        A release whose run has no manifest and whose model is not in the registry was written by
        another program. If the registry has the model, ``training-runs`` was recreated.

        Raises:
            RegistryError: the registry is unavailable.
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
                "has no manifest and its model is not in the registry"
            )
            topic = Topics.of(self._settings).retriever_releases
            releases.report_refused("releases", topic, offset, b"live", why)
        return replace(history, releases=replace(known, live=None, live_offset=-1))

    def announce(self, producer: Producer, manifest: RunManifest) -> None:
        """Write a manifest to the topic.

        Raises:
            DeliveryError: the manifest may or may not be on the topic. If it is, the next
                :meth:`refresh` finds it, and the run continues.
            StoppedError: another trainer announced a run of this version first.
        """
        key, value = runs.encode(manifest)
        kafka.publish_and_wait(producer, self._topic, key=key, value=value)
        if self.refresh().run(manifest.run_id) != manifest:
            raise StoppedError(
                f"Another trainer announced version {manifest.version} first.",
                topic=self._topic,
                version=manifest.version,
            )


def find_run(settings: Settings, wanted: str) -> tuple[History, RunManifest]:
    """The history, and the run whose id begins with ``wanted``.

    Raises:
        InputError: there is none, or there are several.
        BrokerUnavailableError, TopicMismatchError: from Kafka.
    """
    history = _history(settings)
    found = [run for run in history.runs if run.run_id.startswith(wanted)]
    if wanted and len(found) == 1:
        return history, found[0]
    if wanted and found:
        several = ", ".join(sorted(run.run_id for run in found))
        raise InputError(f"Several runs begin with {wanted}: {several}.")
    raise InputError(f"There is no run {wanted!r}. {_latest(history)}")


def listing(settings: Settings) -> str:
    """A sentence with the latest runs.

    Raises:
        BrokerUnavailableError, TopicMismatchError: from Kafka.
    """
    return _latest(_history(settings))


def _history(settings: Settings) -> History:
    topics = Topics.of(settings)
    kafka.require_broker(settings, [topics.training_runs, topics.retriever_releases])
    return RunHistory(settings).refresh()


def _latest(history: History) -> str:
    last = [f"{run.run_id} (release {run.version})" for run in history.runs[-SHOWN:]]
    return f"Latest runs: {', '.join(last) or 'none yet'}."
