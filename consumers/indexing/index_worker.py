"""The index worker: every release that goes live gets a collection, and the alias follows.

Any number of workers share the work. Each follows ``documents`` for every build that is kept, as a
member of that build's group. Two tasks are one worker's at a time: the *leader* (owner of
``retriever-releases`` in group ``index``) registers the first release, creates collections and
drops them; the *coordinator* (owner of partition 0 of ``documents`` in the live build's group)
completes that build and swaps it in.
"""

import secrets
import threading
import time
from contextlib import closing
from functools import partial

import structlog

from consumers.indexing import build_plan, first_release
from consumers.indexing import index_metrics as metrics
from consumers.indexing.build_plan import Facts, Plan
from consumers.indexing.coordinator import Coordinator, Duty
from consumers.indexing.embedder import Embedder
from consumers.indexing.groups import Groups
from consumers.indexing.index_milvus import Milvus
from consumers.indexing.ingest import Ingest
from consumers.indexing.leadership import Leadership
from consumers.indexing.vectors import open_store
from consumers.indexing.watch import ReleaseWatch
from retrail_runtime.kafka import require_broker
from retrail_runtime.metrics import serve_metrics
from retrail_runtime.signals import stop_event
from schemas.collection import Build, collection_name
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
COORDINATED_PARTITION = 0
MODEL_RETRY_SECONDS = 10.0


def run(settings: Settings) -> None:
    """Index until SIGTERM or SIGINT.

    Raises:
        BrokerUnavailableError, TopicMismatchError, MilvusUnavailableError: at the start.
        ConfigurationError: this Milvus is too old for hybrid search; at the start.
        ModelError: the first model, or that of a collection, cannot be loaded.
        RestartRequiredError: Kafka or Milvus was lost for too long; a restart is the remedy.
    """
    topics = Topics.of(settings)
    require_broker(settings, [topics.documents, topics.documents_dlq, topics.retriever_releases])
    with stop_event() as stop, closing(Milvus(settings, stop)) as milvus:
        milvus.require_search()
        serve_metrics(settings, "index")
        IndexWorker(settings, milvus, stop).run()


class IndexWorker:
    """One worker; :meth:`run` blocks until ``stop`` is set."""

    def __init__(self, settings: Settings, milvus: Milvus, stop: threading.Event) -> None:
        self._settings = settings
        self._milvus = milvus
        self._stop = stop
        self._retired: dict[str, float] = {}
        self._ingests: dict[str, Ingest] = {}
        self._ending: list[Ingest] = []
        self._embedders: dict[str, Embedder] = {}
        self._loading = threading.Lock()
        self._vectors = open_store(settings)
        self._live_build: Build | None = None
        self._model_failed_at: float | None = None
        self._groups = Groups(settings)
        self._coordinator = Coordinator(settings, milvus, self._duty)

    def run(self) -> None:
        """Follow releases and documents until stopped.

        Raises:
            As :func:`run`, in whatever thread it happened.
        """
        watch = ReleaseWatch(self._settings)
        leadership = Leadership(self._settings)
        self._coordinator.start()
        try:
            while not self._stop.is_set():
                self._step(watch.now(), leading=leadership.held())
                self._raise_errors()
                self._stop.wait(TICK)
        finally:
            self._close()
            leadership.close()
            watch.close()

    def _step(self, releases: Releases, *, leading: bool) -> None:
        """One look at the facts, and what follows from them.

        1. Leader: register the first release, if nothing is live.
        2. Look at Milvus: builds and alias.
        3. Follow the builds that are kept.
        4. Leader: create the live release's collection, again if it is to be searched otherwise,
           and drop what is over.
        """
        if releases.live is None:
            if leading:
                first_release.register(self._settings)
            return
        facts = Facts(
            live=releases.live.version,
            aliased=self._milvus.aliased(),
            builds=self._milvus.builds(),
            retired=self._retired,
            now=time.monotonic(),
            grace=self._settings.index_grace_seconds,
            search=self._settings.index_search,
        )
        self._retired = build_plan.retired_since(facts)
        plan = build_plan.plan(facts)
        self._follow(plan)
        if leading:
            self._create(plan, releases, facts)
            self._drop(plan, facts)
        self._live_build = plan.target
        serving = next((b.version for b in facts.builds if b.collection == facts.aliased), 0)
        metrics.LIVE_VERSION.set(serving)

    def _follow(self, plan: Plan) -> None:
        """Start and end the threads, so that there is one for each build that is kept."""
        kept = {build.build_id: build for build in plan.follow}
        for build_id in [name for name in self._ingests if name not in kept]:
            ingest = self._ingests.pop(build_id)
            ingest.stop()
            self._ending.append(ingest)
            self._embedders.pop(build_id, None)
        for build_id, build in kept.items():
            if build_id not in self._ingests:
                ingest = Ingest(
                    self._settings,
                    build,
                    self._groups.of(build),
                    partial(self._embedder, build),
                    self._milvus,
                )
                self._ingests[build_id] = ingest
                ingest.start()
        metrics.BUILDS.set(len(self._ingests))

    def _create(self, plan: Plan, releases: Releases, facts: Facts) -> None:
        if plan.create is None:
            return
        release = releases.by_version.get(plan.create)
        if release is None:
            log.error("live names a release that does not exist", version=plan.create)
            return
        build = Build(
            collection=collection_name(
                self._settings.retriever, release.version, self._settings.index_search
            ),
            version=release.version,
            build_id=secrets.token_hex(4),
            location=release.model.location,
            digest=release.model.digest,
            search=self._settings.index_search,
            generation=plan.target.generation + 1 if plan.target else 0,
        )
        try:
            dimension = self._embedder(build).dimension
        except ModelError as error:
            self._put_off(build, error, serving=facts.aliased)
            return
        self._milvus.create(build, dimension)
        log.info(
            "build begins",
            collection=build.collection,
            build_id=build.build_id,
            search=build.search,
        )

    def _put_off(self, build: Build, error: ModelError, serving: str | None) -> None:
        """A model that cannot be loaded is fatal, unless another build serves meanwhile."""
        if serving is None:
            raise error
        now = time.monotonic()
        if self._model_failed_at is None or now >= self._model_failed_at + MODEL_RETRY_SECONDS:
            self._model_failed_at = now
            log.error(
                "cannot build the live release, the one before goes on serving",
                version=build.version,
                serving=serving,
                error=str(error),
            )

    def _drop(self, plan: Plan, facts: Facts) -> None:
        for build in plan.drop:
            role = build_plan.role(build, plan.target, facts.aliased)
            self._milvus.drop(build)
            metrics.DROPPED.labels(role).inc()
            log.info("build dropped", collection=build.collection, role=role)
        self._groups.delete_orphans(plan.follow)

    def _duty(self) -> Duty | None:
        """What the coordinator of this process is to do; called from its thread."""
        build = self._live_build
        ingest = self._ingests.get(build.build_id) if build else None
        if build is None or ingest is None or COORDINATED_PARTITION not in ingest.owned:
            return None
        return Duty(build, self._groups.of(build), self._embedder(build))

    def _embedder(self, build: Build) -> Embedder:
        """The embedder of a build, loaded once."""
        with self._loading:
            found = self._embedders.get(build.build_id)
            if found is None:
                model = Model(location=build.location, digest=build.digest)
                encoder = Registry.of(self._settings).load(model)
                found = Embedder(
                    encoder,
                    build.version,
                    batch=self._settings.encode_batch,
                    store=(
                        self._vectors.of(build.digest, encoder.dimension) if self._vectors else None
                    ),
                )
                self._embedders[build.build_id] = found
            return found

    def _raise_errors(self) -> None:
        """End the worker if a thread failed; forget those that ended as they should."""
        threads: list[Coordinator | Ingest] = [self._coordinator, *self._ingests.values()]
        for thread in threads:
            if isinstance(thread.error, BrokerUnavailableError | DeliveryError):
                raise RestartRequiredError(f"Kafka was lost: {thread.error}") from thread.error
            if thread.error is not None:
                raise thread.error
        for build_id in [name for name, thread in self._ingests.items() if not thread.is_alive()]:
            del self._ingests[build_id]
        self._ending = [thread for thread in self._ending if thread.is_alive()]

    def _close(self) -> None:
        threads: list[Coordinator | Ingest] = [
            self._coordinator,
            *self._ingests.values(),
            *self._ending,
        ]
        for thread in threads:
            thread.stop()
        for thread in threads:
            if thread.is_alive():
                thread.join()
        if self._vectors is not None:
            self._vectors.close()
