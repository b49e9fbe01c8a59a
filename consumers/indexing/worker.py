"""The index worker: every release that goes live gets a collection, and the alias follows.

Any number of workers share the work. Each follows ``documents`` for every build that is kept, as a
member of that build's consumer group. One of them leads (:mod:`retrail_runtime.lease`): it
registers the first release, creates collections, completes the build that should serve, swaps the
alias and drops collections.
"""

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

import structlog
from confluent_kafka import KafkaException

from consumers.indexing import metrics
from consumers.indexing.coordinator import Coordinator
from consumers.indexing.embedder import Embedder, VectorStore
from consumers.indexing.ingest import Ingest
from consumers.indexing.milvus import Milvus
from consumers.indexing.plan import Facts, Plan, group, plan, retired_since, role
from consumers.indexing.releases import ReleaseWatch, register_first
from retrail_runtime import kafka
from retrail_runtime.collection import Build, collection_name
from retrail_runtime.lease import Lease
from retrail_runtime.logging import RateLimit
from retrail_runtime.metrics import serve_metrics
from retrail_runtime.signals import stop_event
from schemas.errors import (
    BrokerUnavailableError,
    DeliveryError,
    ModelError,
    RestartRequiredError,
)
from schemas.releases import Model
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.data.releases import Releases
from trainer.registry.registry import Registry

log = structlog.get_logger(__name__)

TICK = 0.2
ERROR_LOG_SECONDS = 10.0


def run(settings: Settings) -> None:
    """Index until SIGTERM or SIGINT.

    Raises:
        BrokerUnavailableError, TopicMismatchError, MilvusUnavailableError: at the start.
        ConfigurationError: this Milvus is too old for hybrid search; at the start.
        ModelError: the first model, or that of a collection, cannot be loaded.
        RestartRequiredError: Kafka or Milvus was lost for too long; a restart is the remedy.
    """
    topics = Topics.of(settings)
    kafka.require_broker(
        settings, [topics.documents, topics.documents_dlq, topics.retriever_releases]
    )
    with stop_event() as stop, closing(Milvus(settings, stop)) as milvus:
        milvus.require_search()
        serve_metrics(settings, "index")
        IndexWorker(settings, milvus, stop).run()


class Task(threading.Thread):
    """Runs ``work(stopping)``, which returns soon after the event is set.

    Attributes:
        error: what ``work`` raised.
    """

    def __init__(self, name: str, work: Callable[[threading.Event], None]) -> None:
        super().__init__(name=name, daemon=True)
        self.error: Exception | None = None
        self._work = work
        self._stopping = threading.Event()

    def run(self) -> None:
        """The thread's body."""
        try:
            self._work(self._stopping)
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        """Ask it to end; ``join`` waits for that."""
        self._stopping.set()


class IndexWorker:
    """One worker; :meth:`run` blocks until ``stop`` is set."""

    def __init__(self, settings: Settings, milvus: Milvus, stop: threading.Event) -> None:
        self._settings = settings
        self._milvus = milvus
        self._stop = stop
        self._index_group = settings.group("index")
        self._retired: dict[str, float] = {}
        self._ingests: dict[str, Task] = {}
        self._ending: list[Task] = []
        self._embedders: dict[str, Embedder] = {}
        self._loading = threading.Lock()
        self._vectors = VectorStore.of(settings)
        self._target: Build | None = None
        self._leads = False
        self._model_errors = RateLimit(ERROR_LOG_SECONDS)
        coordinator = Coordinator(settings, milvus, self._assigned, self._embedder)
        self._coordinator = Task("index-coordinator", coordinator.run)

    def run(self) -> None:
        """Follow releases and documents until stopped.

        Raises:
            As :func:`run`, in whatever thread it happened.
        """
        topic = Topics.of(self._settings).retriever_releases
        with (
            closing(ReleaseWatch(self._settings)) as watch,
            closing(Lease(self._settings, topic, self._index_group)) as lease,
        ):
            self._coordinator.start()
            try:
                while not self._stop.is_set():
                    self._leads = lease.poll(TICK)
                    self._step(watch.now())
                    self._raise_errors()
            finally:
                self._close()

    def _step(self, releases: Releases) -> None:
        """Look at the facts once, and do what follows from them.

        1. Leader: register the first release, if nothing is live.
        2. Look at Milvus: builds and alias.
        3. Follow the builds that are kept.
        4. Leader: create the live release's collection if it is missing or to be built again, and
           drop the builds that are over.
        """
        if releases.live is None:
            if self._leads and releases.lacks_first():
                register_first(self._settings)
            return
        facts = Facts(
            live=releases.live.version,
            aliased=self._milvus.aliased(),
            builds=self._milvus.builds(),
            retired=self._retired,
            now=time.monotonic(),
            grace=self._settings.index_grace_seconds,
        )
        self._retired = retired_since(facts)
        decided = plan(facts)
        self._target = decided.target
        self._follow(decided.follow)
        if self._leads:
            self._create(decided, releases, facts)
            self._drop(decided, facts)
        serving = next((b.version for b in facts.builds if b.collection == facts.aliased), 0)
        metrics.LIVE_VERSION.set(serving)

    def _follow(self, builds: tuple[Build, ...]) -> None:
        """Start and end threads, so that there is one for each build that is kept."""
        kept = {build.build_id: build for build in builds}
        for build_id in self._ingests.keys() - kept.keys():
            task = self._ingests.pop(build_id)
            task.stop()
            self._ending.append(task)
        for build_id, build in kept.items():
            if build_id not in self._ingests:
                ingest = Ingest(
                    self._settings,
                    build,
                    group(self._index_group, build),
                    partial(self._embedder, build),
                    self._milvus,
                )
                self._ingests[build_id] = Task(f"ingest-{build.collection}", ingest.run)
                self._ingests[build_id].start()
        for digest in set(self._embedders) - {build.digest for build in builds}:
            self._embedders.pop(digest, None)
        metrics.BUILDS.set(len(self._ingests))

    def _create(self, decided: Plan, releases: Releases, facts: Facts) -> None:
        if decided.create is None:
            return
        release = releases.by_version[decided.create]
        successor = decided.target.successor if decided.target else ""
        build = Build(
            collection=collection_name(self._settings.retriever, release.version, successor),
            version=release.version,
            build_id=successor or secrets.token_hex(4),
            location=release.model.location,
            digest=release.model.digest,
            search=self._settings.index_search,
        )
        try:
            dimension = self._embedder(build).dimension
        except ModelError as error:
            # Fatal, unless another build serves meanwhile.
            if facts.aliased is None:
                raise
            if self._model_errors.allows():
                log.error(
                    "cannot build the live release, the previous one keeps serving",
                    version=build.version,
                    serving=facts.aliased,
                    error=str(error),
                )
            return
        self._milvus.create(build, dimension)
        log.info(
            "build created",
            collection=build.collection,
            build_id=build.build_id,
            search=build.search,
        )

    def _drop(self, decided: Plan, facts: Facts) -> None:
        for build in decided.drop:
            found = role(build, decided.target, facts.aliased)
            self._milvus.drop(build)
            metrics.DROPPED.labels(found).inc()
            log.info("build dropped", collection=build.collection, role=found)

    def _assigned(self) -> Build | None:
        """The build to coordinate, if this worker leads."""
        return self._target if self._leads else None

    def _embedder(self, build: Build) -> Embedder:
        """The embedder of a build's model, loaded once."""
        with self._loading:
            found = self._embedders.get(build.digest)
            if found is None:
                model = Model(location=build.location, digest=build.digest)
                encoder = Registry.of(self._settings).load(model)
                found = Embedder(encoder, build.version, build.digest, self._vectors)
                self._embedders[build.digest] = found
            return found

    def _raise_errors(self) -> None:
        """Raise the error of a task that failed; forget tasks that ended as they should."""
        for task in (self._coordinator, *self._ingests.values()):
            if isinstance(task.error, BrokerUnavailableError | DeliveryError | KafkaException):
                raise RestartRequiredError(f"Kafka was lost: {task.error}") from task.error
            if task.error is not None:
                raise task.error
        self._ingests = {name: task for name, task in self._ingests.items() if task.is_alive()}
        self._ending = [task for task in self._ending if task.is_alive()]

    def _close(self) -> None:
        tasks = [self._coordinator, *self._ingests.values(), *self._ending]
        for task in tasks:
            task.stop()
        for task in tasks:
            task.join()
        self._vectors.close()
