"""The index worker: every release that goes live gets a collection, and the alias follows.

Any number of workers share the work. Each follows ``documents`` for every current build, as a
member of that build's consumer group. One of them leads (:mod:`retrail_runtime.kafka.lease`): it
registers the first release, creates collections, completes the build that should serve, swaps the
alias and drops collections.
"""

import secrets
import threading
import time
from contextlib import closing
from dataclasses import replace
from functools import partial

import structlog
from confluent_kafka import KafkaException

from consumers.first_release import register_first
from consumers.indexing import metrics
from consumers.indexing.coordinator import Coordinator
from consumers.indexing.embedder import Embedder
from consumers.indexing.ingest import DeadLetters, Ingest
from consumers.indexing.metrics import Observation, state_of
from consumers.indexing.milvus import Milvus
from consumers.indexing.plan import (
    Assignment,
    Facts,
    Plan,
    assignment,
    group,
    plan,
    retired_since,
    role,
)
from consumers.indexing.releases import Candidates, ReleaseWatch
from consumers.tasks import Task
from consumers.vectors import VectorStore
from retrail_runtime import files, kafka
from retrail_runtime.health import State, serve_metrics
from retrail_runtime.kafka.lease import Lease
from retrail_runtime.milvus import Build, collection_name
from retrail_runtime.process import RateLimit, stop_event
from schemas.errors import (
    BrokerUnavailableError,
    DeliveryError,
    ModelError,
    RestartRequiredError,
    TopicMismatchError,
)
from schemas.releases import Model
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.data import candidates
from trainer.data.releases import Releases
from trainer.registry.registry import Registry

log = structlog.get_logger(__name__)

TICK = 0.2
LOOK_SECONDS = 5.0
"""Between two looks at the collections and the alias while the live release serves."""
BUSY_LOOK_SECONDS = 0.5
"""The same while it does not serve yet."""
ERROR_LOG_SECONDS = 10.0
TOPIC_ID_SECONDS = 5.0
"""Between two looks at the topics' ids."""


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
    kafka.require_rights(settings, "index")
    with stop_event() as stop, closing(Milvus(settings, stop)) as milvus:
        milvus.require_search()
        worker = IndexWorker(settings, milvus, stop)
        serve_metrics(settings, "index", worker.health)
        worker.run()


class TopicIds:
    """The ids of the worker's topics, checked every :data:`TOPIC_ID_SECONDS`; for one thread."""

    def __init__(self, settings: Settings) -> None:
        """Read them.

        Raises:
            BrokerUnavailableError, TopicMismatchError: from Kafka.
        """
        topics = Topics.of(settings)
        self._admin = kafka.admin(settings)
        self._documents, self._releases = topics.documents, topics.retriever_releases
        self._releases_id = kafka.topic_id(self._admin, self._releases)
        self._documents_id: str | None = kafka.topic_id(self._admin, self._documents)
        self._checked_at = time.monotonic()

    def documents(self) -> str | None:
        """The id of ``documents``; ``None`` while there is no such topic.

        While the broker does not answer these are the last known ids.

        Raises:
            RestartRequiredError: ``retriever-releases`` was deleted or created again.
        """
        if time.monotonic() >= self._checked_at + TOPIC_ID_SECONDS:
            self.check()
        return self._documents_id

    def check(self) -> None:
        """Read the ids now.

        Raises:
            RestartRequiredError: as :meth:`documents`.
        """
        self._checked_at = time.monotonic()
        try:
            releases_id = self._now(self._releases)
            found = self._now(self._documents)
        except BrokerUnavailableError as error:
            log.debug("cannot read topic ids", error=str(error))
            return
        if releases_id != self._releases_id:
            raise RestartRequiredError(
                f"Topic {self._releases} was deleted or created again. It is read from its start "
                "after a restart.",
                topic=self._releases,
            )
        if found != self._documents_id:
            event = "topic missing" if found is None else "topic was created again"
            log.error(event, topic=self._documents, topic_id=found, before=self._documents_id)
        self._documents_id = found

    def _now(self, topic: str) -> str | None:
        try:
            return kafka.topic_id(self._admin, topic, TOPIC_ID_SECONDS)
        except TopicMismatchError:
            return None


class IndexWorker:
    """One worker; :meth:`run` blocks until ``stop`` is set."""

    def __init__(self, settings: Settings, milvus: Milvus, stop: threading.Event) -> None:
        self._settings = settings
        self._milvus = milvus
        self._stop = stop
        self._index_group = settings.group("index")
        self._retired: dict[str, float] = {}
        self._ingests: dict[tuple[str, str], Task[None]] = {}
        self._followed: dict[tuple[str, str], Ingest] = {}
        self._observed = Observation(time.monotonic())
        self._seen: tuple[int, str | None, bool] | None = None
        self._look_at = 0.0
        self._ending: list[Task[None]] = []
        self._embedders: dict[str, Embedder] = {}
        self._loading = threading.Lock()
        self._vectors = VectorStore.of(settings)
        self._letters = DeadLetters(settings)
        self._assignment: Assignment | None = None
        self._errors = RateLimit(ERROR_LOG_SECONDS)
        self._claim = files.claim(settings, "index")
        coordinator = Coordinator(
            settings, milvus, self._claim.path, lambda: self._assignment, self._embedder
        )
        self._candidates = Candidates(settings, lambda: coordinator.moved_at)
        self._coordinator = Task("index-coordinator", coordinator.run)

    def run(self) -> None:
        """Follow releases and documents until stopped.

        Raises:
            As :func:`run`, in whatever thread it happened.
        """
        topic = Topics.of(self._settings).retriever_releases
        ids = TopicIds(self._settings)
        with (
            closing(ReleaseWatch(self._settings)) as watch,
            closing(Lease(self._settings, topic, self._index_group)) as lease,
        ):
            self._coordinator.start()
            try:
                while not self._stop.is_set():
                    leads = lease.poll(TICK)
                    self._step(watch.now(), ids.documents(), leads)
                    if self._forget_ended():
                        ids.check()
                        self._look_at = 0.0
            finally:
                self._close()

    def health(self) -> State:
        """Its state; may be called from any thread."""
        builds = list(self._followed.values())
        building = [build.moved_at for build in builds if build.loaded]
        loading = [build.moved_at for build in builds if not build.loaded]
        return state_of(self._observed, building, loading, time.monotonic())

    def _step(self, releases: Releases, topic_id: str | None, leads: bool) -> None:
        """Follow ``live``, and do what it asks for.

        1. Leader: register the first release, if nothing is live.
        2. Read the builds and the alias from Milvus.
        3. Follow the current builds; leader: coordinate the one that should serve; while it does,
           the open candidate's.
        4. Leader: create the collection of the live release, or of the candidate, if it is missing
           or to be built again, and drop the builds that are over.
        5. Leader: make a candidate live that passed, and abandon one without progress.
        """
        if releases.live is None:
            if not releases.lacks_first():
                if self._errors.allows("live"):
                    log.error("no release is live, choose one with `retrail promote VERSION`")
            elif leads:
                register_first(self._settings)
            self._observed = Observation(time.monotonic(), topic_id is None)
            return
        metrics.LIVE_VERSION.set(releases.live.version)
        metrics.LIVE_SINCE.set(releases.live.changed_at.timestamp())
        seen = (releases.next_offset, topic_id, leads)
        if seen != self._seen or time.monotonic() >= self._look_at:
            self._seen = seen
            self._look(releases, releases.live.version, topic_id, leads)
        self._observed = replace(
            self._observed, turned_at=time.monotonic(), topic_missing=topic_id is None
        )

    def _look(self, releases: Releases, live: int, topic_id: str | None, leads: bool) -> None:
        """Steps 2 to 4. Milvus is looked at when ``live``, the topic or the leader has changed,
        often while a build is to be swapped in, and seldom while nothing happens.
        """
        facts = Facts(
            live=live,
            aliased=self._milvus.aliased(),
            builds=self._milvus.builds(),
            retired=self._retired,
            now=time.monotonic(),
            grace=self._settings.index_grace_seconds,
            candidate=candidates.kept(releases),
        )
        self._retired = retired_since(facts)
        decided = plan(facts)
        self._follow(decided.follow, topic_id)
        undecided = candidates.undecided(releases)
        # The coordinator reads it at any moment, so it is set once.
        self._assignment = assignment(decided, facts, undecided, topic_id) if leads else None
        if leads:
            self._create(decided, releases, facts)
            self._drop(decided, facts)
            self._candidates.step(releases)
        else:
            self._candidates.stand_by()
        serving = next((b.version for b in facts.builds if b.collection == facts.aliased), 0)
        metrics.SERVING_VERSION.set(serving)
        self._observed = replace(
            self._observed,
            serving=facts.aliased,
            target=decided.target.collection if decided.target else None,
        )
        idle = self._observed.serving == self._observed.target and decided.create is None
        self._look_at = time.monotonic() + (LOOK_SECONDS if idle else BUSY_LOOK_SECONDS)

    def _follow(self, builds: tuple[Build, ...], topic_id: str | None) -> None:
        """Start and stop threads, so that one follows ``documents`` for each build."""
        wanted = [Assignment(build, topic_id) for build in builds if topic_id is not None]
        for key in self._ingests.keys() - {one.key for one in wanted}:
            task = self._ingests.pop(key)
            task.stop()
            self._ending.append(task)
        for one in wanted:
            if one.key not in self._ingests:
                metrics.show_build(one.build.version)
                ingest = Ingest(
                    self._settings,
                    one.build,
                    group(self._index_group, one),
                    partial(self._embedder, one.build),
                    self._milvus,
                    self._letters,
                )
                self._followed[one.key] = ingest
                self._ingests[one.key] = Task(f"ingest-{one.build.collection}", ingest.run)
                self._ingests[one.key].start()
        self._followed = {key: self._followed[key] for key in self._ingests}
        for digest in set(self._embedders) - {build.digest for build in builds}:
            self._embedders.pop(digest, None)
        metrics.BUILDS.set(len(self._ingests))

    def _create(self, decided: Plan, releases: Releases, facts: Facts) -> None:
        if decided.create is None:
            return
        release = releases.by_version[decided.create]
        successor = decided.successor
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
            # Fatal, unless another build serves.
            if facts.aliased is None:
                raise
            if self._errors.allows():
                log.error(
                    "cannot build the release, the previous one keeps serving",
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
            found = role(build, decided.target, facts.aliased, decided.candidate)
            self._milvus.drop(build)
            metrics.DROPPED.labels(found).inc()
            log.info("build dropped", collection=build.collection, role=found)

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

    def _forget_ended(self) -> bool:
        """Forget ended tasks; returns whether one ended without being stopped.

        Raises:
            As :func:`run`, if a task failed.
        """
        for task in (self._coordinator, *self._ingests.values()):
            if isinstance(task.error, BrokerUnavailableError | DeliveryError | KafkaException):
                raise RestartRequiredError(f"Kafka was lost: {task.error}") from task.error
            if task.error is not None:
                raise task.error
        alive = {key: task for key, task in self._ingests.items() if task.is_alive()}
        ended = len(alive) < len(self._ingests)
        self._ingests = alive
        self._ending = [task for task in self._ending if task.is_alive()]
        return ended

    def _close(self) -> None:
        tasks = [self._coordinator, *self._ingests.values(), *self._ending]
        for task in tasks:
            task.stop()
        for task in tasks:
            task.join()
        self._vectors.close()
        self._claim.lock.release()
