"""One decision on a candidate: the steps around :mod:`consumers.indexing.candidate`."""

import secrets
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from consumers.indexing import candidate, plan
from consumers.indexing.candidate import Hits, Side
from consumers.indexing.comparison import DocumentHashes
from consumers.indexing.embedder import Embedder
from consumers.indexing.milvus import Milvus
from consumers.indexing.releases import write_decision
from consumers.tasks import StoppedError
from retrail_runtime.milvus import SUCCESSOR_PROPERTY, Build, collection_name
from retrail_runtime.search import Tenants
from schemas.errors import ModelError, RestartRequiredError
from schemas.releases import CandidateDecision, Integrity, Release
from schemas.settings import Settings
from trainer.data import candidates
from trainer.data.examples import file_digest
from trainer.data.releases import Releases
from trainer.evaluate.evaluation import CUTOFF
from trainer.evaluate.frozen import Frozen, parse
from trainer.model.encoder import Vectors
from trainer.registry.registry import GATE_FILE, Registry

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Judge:
    """Decides on the build of a candidate, while this worker leads.

    Attributes:
        require: raises StoppedError once this worker does not lead, or has another task.
        known: the releases as of now.
    """

    settings: Settings
    milvus: Milvus
    embedder: Callable[[Build], Embedder]
    require: Callable[[], object]
    documents: DocumentHashes
    known: Releases
    build: Build

    def decide(self, *, prepare: Callable[[], str], await_both: Callable[[Build], None]) -> None:
        """Decide, and write the decision; a build that fails is replaced once by another one.

        1. Complete the build.
        2. Read the documents of the frozen pool, and wait until this build and the live one have
           passed the same end offsets of ``documents``.
        3. Ask the frozen queries of both.
        4. Write the decision. *A crash before*: the next leader measures again.

        The worker acts on the decision.

        Args:
            prepare: step 1; returns why the build cannot be completed, if so.
            await_both: waits for both, given the live build.

        Raises:
            StoppedError: from ``require``, or there is nothing to decide.
            ModelError: a model or the frozen file is missing or was changed.
            NoTenantsError: the queries have tenants, and the rows of the live build have none.
        """
        build = self.build
        if candidates.undecided(self.known) != build.version:
            raise StoppedError("there is nothing to decide")
        release = self.known.by_version[build.version]
        frozen = self._frozen(release, Registry.of(self.settings))
        log.info("completing candidate", collection=build.collection)
        if problem := prepare():
            self._write(self._failed(problem))
            return
        live = self._live()
        own = self._integrity(frozen, lambda: await_both(live))
        decision = candidate.decide(
            release,
            frozen,
            Side(live, self.embedder(live)),
            Side(build, self.embedder(build)),
            own=own,
            search=self._search,
            documents=self.milvus.count(build),
            manual=self.settings.gate == "manual",
            seed=self.settings.train_seed,
        )
        self._write(decision)

    def require_sound(self) -> None:
        """Check the integrity of a build that is to serve without a decision on it.

        Its release was promoted, or is built again. A release that was not compared has no frozen
        queries, and is not checked; nor is one whose queries were removed by retention.

        Raises:
            StoppedError: the build failed, and another one replaces it.
            RestartRequiredError: it failed as well.
            ModelError: as :meth:`decide`.
        """
        build, release = self.build, self.known.by_version[self.build.version]
        if build.served or release.results is None:
            return
        registry = Registry.of(self.settings)
        if registry.notes.read(f"{release.model.location}.{GATE_FILE}").expired:
            log.warning("integrity not checked: no queries are left", version=build.version)
            return
        problem = candidate.broken(self._integrity(self._frozen(release, registry)))
        if not problem:
            return
        if self._replaced(problem):
            raise StoppedError("another build replaces it")
        raise RestartRequiredError(
            f"{build.collection} cannot serve: {problem}.", collection=build.collection
        )

    def _integrity(self, frozen: Frozen, wait: Callable[[], object] = lambda: None) -> Integrity:
        """The integrity of the build; ``wait`` is called once the pool's documents are read."""
        self.documents.catch_up()
        with self.documents.noting() as noted:

            def changed() -> Set[str]:
                self.documents.catch_up()
                return noted

            pool = list(self.documents.documents(frozen.pool).values())
            wait()
            return candidate.integrity(
                frozen,
                Side(self.build, self.embedder(self.build)),
                search=self._search,
                pool=pool,
                changed=changed,
                check=self.require,
            )

    def _frozen(self, release: Release, registry: Registry) -> Frozen:
        content = (registry.read_beside(release.model, GATE_FILE) or "").encode()
        location = f"{release.model.location}.{GATE_FILE}"
        digests = (release.results, *registry.notes.read(location).digests)
        if file_digest(content) not in digests:
            raise ModelError(
                f"The file {location} in {registry.name} is missing, or its digest is not "
                f"{release.results}. Restore it from a backup of the registry."
            )
        return parse(content)

    def _live(self) -> Build:
        live = self.known.live
        found = plan.target(self.milvus.builds(), live.version if live else None)
        if found is None:
            raise StoppedError("the live release has no collection")
        return found

    def _search(
        self, build: Build, texts: Sequence[str], vectors: Vectors, tenants: Tenants
    ) -> Sequence[Hits]:
        self.require()
        return self.milvus.search(build, texts, vectors, CUTOFF, tenants)

    def _failed(self, problem: str) -> CandidateDecision:
        return CandidateDecision(
            version=self.build.version,
            decision="failed",
            reason=problem,
            decided_at=datetime.now(UTC),
        )

    def _write(self, decision: CandidateDecision) -> None:
        self.require()
        if decision.decision != "failed" or not self._replaced(decision.reason):
            write_decision(self.settings, decision)

    def _replaced(self, problem: str) -> bool:
        """Replace the first build of a release by another one; ``False`` if this is the second."""
        build = self.build
        # The collection of a second build has the build's id in its name.
        first = build.collection == collection_name(self.settings.retriever, build.version)
        if first:
            log.warning("building the release again", version=build.version, why=problem)
            self.milvus.set_property(build, SUCCESSOR_PROPERTY, secrets.token_hex(4))
        return first
