"""The coordinator of a build: completes it, swaps it in, and keeps it equal to the documents.

It runs in the leading worker, so there is one at a time. It has no state of its own: when that
worker dies, the next leader starts the recipe again.
"""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import structlog
from confluent_kafka import Consumer

from consumers import releases
from consumers.indexing import metrics, plan
from consumers.indexing.collection import CollectionLostError
from consumers.indexing.comparison import Comparison, DocumentHashes
from consumers.indexing.embedder import Embedder
from consumers.indexing.judging import Judge
from consumers.indexing.milvus import PAGE, Milvus
from consumers.indexing.plan import Assignment
from consumers.tasks import StoppedError
from retrail_runtime import kafka
from retrail_runtime.kafka.lease import owners
from retrail_runtime.milvus import INDEXED_PROPERTY, Build
from retrail_runtime.process import RateLimit
from schemas.errors import ModelError, NoTenantsError, RestartRequiredError, TopicMismatchError
from schemas.settings import Settings
from schemas.topics import Topics

log = structlog.get_logger(__name__)

Ends = Mapping[int, tuple[int, int]]
"""First and end offset by partition."""

TICK = 0.1
LOOK_SECONDS = 5.0
"""Between two looks at a build that serves: whether it is loaded, and who owns its partitions."""
LOST_SECONDS = 1.0
"""Pause after the collection, the topic or a model was lost."""
PROGRESS_SECONDS = 5.0
NOTING_SECONDS = 1.0
"""Between two looks at the documents that a build has not read."""
MAX_REPAIRS = 20
"""Comparisons in a row that may find differences; the second should find none."""
PAGE_SECONDS = 180.0
"""Longest time between two comparisons of a page."""
SETTLING_SECONDS = 60.0
"""How long a worker may still write after it lost a partition: a chunk, and a call's retries."""


class Coordinator:
    """Coordinates the build that should serve, or that of a candidate.

    Attributes:
        moved_at: last progress, on the monotonic clock.
    """

    def __init__(
        self,
        settings: Settings,
        milvus: Milvus,
        folder: Path,
        assigned: Callable[[], Assignment | None],
        embedder: Callable[[Build], Embedder],
    ) -> None:
        """Coordinate nothing yet.

        Args:
            folder: used by this process only.
            assigned: returns the build while this process leads, otherwise ``None``.
        """
        self._settings = settings
        self._topic = Topics.of(settings).documents
        self._milvus = milvus
        self._folder = folder
        self._assigned = assigned
        self._embedder = embedder
        self._stopping = threading.Event()
        self.moved_at = time.monotonic()
        self._key: tuple[str, str] = ("", "")
        self._task: tuple[str, str, bool] = ("", "", False)
        self._reached = (self._key, 0, 0)
        self._judged: set[str] = set()
        self._documents: DocumentHashes | None = None
        self._warnings = RateLimit(PROGRESS_SECONDS)
        self._noted: tuple[tuple[str, str], str] = (self._key, "")

    def run(self, stopping: threading.Event) -> None:
        """Coordinate until stopped.

        Raises:
            BrokerUnavailableError, KafkaException: Kafka failed.
            ModelError: a row is to be repaired, and the model cannot be loaded.
            RestartRequiredError: Milvus was lost for too long, or the build cannot be completed.
        """
        self._stopping = stopping
        try:
            while not stopping.wait(TICK):
                assignment = self._assigned()
                if assignment is not None:
                    self._coordinate(assignment)
        finally:
            self._forget_documents()

    def _coordinate(self, assignment: Assignment) -> None:
        build = assignment.build
        if assignment.topic_id != self._key[1]:
            self._forget_documents()
        self._key, self._task = assignment.key, assignment.task
        group = plan.group(self._settings.group("index"), assignment)
        try:
            if self._documents is None:
                self._documents = DocumentHashes(self._settings, self._topic, self._folder)
            with closing(kafka.consumer(self._settings, group)) as offsets:
                compared = Comparison(
                    build,
                    self._milvus,
                    self._documents,
                    self._embedder,
                    await_group=lambda: self._await_group(build, offsets),
                    require=self._require,
                )
                if assignment.candidate:
                    self._judge(build, offsets, compared)
                else:
                    self._serve(build, group, offsets, compared)
        except StoppedError:
            log.info("no longer coordinating", collection=build.collection)
        except RestartRequiredError as error:
            if self._documents is None or not self._documents.outdated:
                raise
            log.warning("reading the documents again", error=str(error))
            self._forget_documents()
        except (CollectionLostError, TopicMismatchError) as error:
            if self._warnings.allows(type(error).__name__):
                log.warning("cannot coordinate", collection=build.collection, error=str(error))
            self._stopping.wait(LOST_SECONDS)

    def _forget_documents(self) -> None:
        if self._documents is not None:
            self._documents.close()
            self._documents = None

    def _serve(self, build: Build, group: str, offsets: Consumer, compared: Comparison) -> None:
        """Swap the build in unless it serves; keep it loaded and equal to the documents.

        A new leader compares the whole: the one before may have died between two writes. Then the
        rows are compared in turn, page by page, all of them once in RETRAIL_INDEX_COMPARE_SECONDS;
        and those of a partition :data:`SETTLING_SECONDS` after it changed its owner.
        """
        admin = kafka.admin(self._settings)
        complete, known, moved = False, owners(admin, group), set[int]()
        settled_at = page_at = 0.0
        while not self._stopping.is_set():
            serves = self._require().serves
            if not serves and self._milvus.aliased() != build.collection:
                # A new build, a rollback to it, or an alias that somebody else moved or dropped.
                self._complete(build, compared)
                complete, page_at = True, time.monotonic() + self._page_seconds(compared)
            self._milvus.load(build)
            if not complete:
                compared.whole()
                complete, page_at = True, time.monotonic() + self._page_seconds(compared)
            found = owners(admin, group)
            if found is not None and found != known:
                moved |= {p for p, owner in found.items() if (known or {}).get(p) != owner}
                known, settled_at = found, time.monotonic() + SETTLING_SECONDS
            if moved and time.monotonic() >= settled_at:
                compared.partitions(moved)
                moved.clear()
            if time.monotonic() >= page_at:
                compared.next_page()
                page_at = time.monotonic() + self._page_seconds(compared)
            self._pause(build, offsets, min(LOOK_SECONDS, self._page_seconds(compared)))

    def _page_seconds(self, compared: Comparison) -> float:
        share = min(1.0, PAGE / max(1, compared.rows))
        return min(PAGE_SECONDS, self._settings.index_compare_seconds * share)

    def _pause(self, build: Build, offsets: Consumer, seconds: float) -> None:
        until, note_at = time.monotonic() + seconds, 0.0
        while time.monotonic() < until:
            self._require()
            if time.monotonic() >= note_at:
                ends = kafka.offsets(offsets, self._topic)
                self._note(build, kafka.committed(offsets, self._topic, ends), ends)
                note_at = time.monotonic() + NOTING_SECONDS
            self._stopping.wait(TICK)

    def _note(self, build: Build, committed: Mapping[int, int], ends: Ends) -> None:
        """Write how much is indexed into the collection, for those who search it."""
        # Not by a count of rows: Milvus Lite reads all of them for it.
        indexed = plan.share_read(committed, ends)
        if (self._key, indexed) != self._noted:
            self._milvus.set_property(build, INDEXED_PROPERTY, indexed)
            self._noted = self._key, indexed

    def _complete(self, build: Build, compared: Comparison) -> None:
        """Complete the build and swap it in.

        1. Take the end offsets of ``documents``, and wait until the group has passed them.
        2. Flush, and wait until all rows are indexed.
        3. Meanwhile compare ids and hashes with the documents, and repair, until there is no
           difference.
        4. If 2 waited, load a new build again, so that searches use its indexes; one must find
           something.
        5. Check that ``live`` still names this version.
        6. Swap the alias.

        A candidate's build that this worker decided on needs only 1, 5 and 6; others are checked
        for integrity (docs/gate.md) before 5.
        """
        started = time.monotonic()
        log.info("completing build", collection=build.collection)
        if build.build_id in self._judged:
            compared.await_group()
        elif problem := self._prepare(build, compared):
            raise RestartRequiredError(problem, collection=build.collection)
        else:
            self._judge_of(build).require_sound()
        self._require_live(build)
        self._milvus.swap(build)
        seconds = time.monotonic() - started
        metrics.SWAPS.inc()
        metrics.BUILD_SECONDS.observe(seconds)
        log.info(
            "index swapped in",
            collection=build.collection,
            rows=compared.rows,
            seconds=round(seconds, 1),
        )

    def _judge(self, build: Build, offsets: Consumer, compared: Comparison) -> None:
        """Decide on the build of a candidate (:mod:`consumers.indexing.judging`), once."""
        while not self._stopping.wait(TICK):
            self._require()
            if build.build_id in self._judged or build.successor:
                continue
            try:
                self._judge_of(build).decide(
                    prepare=lambda: self._prepare(build, compared),
                    await_both=lambda live: self._await_both(build, offsets, live),
                )
                self._judged.add(build.build_id)
            except (ModelError, NoTenantsError) as error:
                if self._warnings.allows("candidate"):
                    version = build.version
                    log.error("cannot decide on the candidate", version=version, error=str(error))
                self._stopping.wait(LOST_SECONDS)

    def _judge_of(self, build: Build) -> Judge:
        assert self._documents is not None
        return Judge(
            self._settings,
            self._milvus,
            self._embedder,
            self._require,
            self._documents,
            releases.read(self._settings),
            build,
        )

    def _await_both(self, build: Build, offsets: Consumer, live: Build) -> None:
        ends = kafka.offsets(offsets, self._topic)
        group = plan.group(self._settings.group("index"), Assignment(live, self._key[1]))
        with closing(kafka.consumer(self._settings, group)) as others:
            self._await_group(live, others, ends)
        self._await_group(build, offsets, ends)

    def _prepare(self, build: Build, compared: Comparison) -> str:
        """1 to 4 of :meth:`_complete`; returns why the build cannot be completed, if so."""
        compared.await_group()
        self._milvus.load(build)
        waits = self._note_indexing(build)
        with ThreadPoolExecutor(1, "make-searchable") as pool:
            searchable = pool.submit(self._milvus.make_searchable, build, waits)
            differs = self._repair_until_equal(build, compared)
            indexed = searchable.result()
        if differs:
            return differs
        self._milvus.load(build, again=indexed and not build.served)
        self._advance(1)
        if not self._milvus.probe(build):
            return f"{build.collection} has rows, but a search finds none of them."
        return ""

    def _note_indexing(self, build: Build) -> Callable[[int], None]:
        """Notes how many rows Milvus has not indexed; any change is progress."""
        before = -1

        def note(left: int) -> None:
            nonlocal before
            self._require()
            if left != before:
                before, self.moved_at = left, time.monotonic()
            if self._warnings.allows("indexing"):
                log.info("waiting for the index", collection=build.collection, rows_left=left)

        return note

    def _repair_until_equal(self, build: Build, compared: Comparison) -> str:
        for _ in range(MAX_REPAIRS):
            repaired = compared.whole()
            if not repaired:
                return ""
        return (
            f"{build.collection} still differs from {self._topic} after {MAX_REPAIRS} repairs: "
            f"{repaired} documents are missing, different or extra. Check that nothing else "
            "writes to this collection."
        )

    def _await_group(self, build: Build, offsets: Consumer, ends: Ends | None = None) -> None:
        """Wait until the build's group has passed end offsets, by default the current ones."""
        ends = ends or kafka.offsets(offsets, self._topic)
        logged_at = time.monotonic()
        while True:
            self._require()
            committed = kafka.committed(offsets, self._topic, ends)
            self._advance(0, sum(committed.values()))
            left = plan.remaining(committed, ends)
            if not left:
                return
            if time.monotonic() - logged_at >= PROGRESS_SECONDS:
                logged_at = time.monotonic()
                self._note(build, committed, ends)
                log.info(
                    "building",
                    collection=build.collection,
                    records_left=left,
                    records=sum(end - low for low, end in ends.values()),
                )
            self._stopping.wait(TICK)

    def _advance(self, step: int, offsets: int = 0) -> None:
        """Note progress: a later step of this build than before, or more offsets read."""
        now = (self._key, step, offsets)
        if now[0] != self._reached[0] or now > self._reached:
            self._reached, self.moved_at = now, time.monotonic()

    def _require_live(self, build: Build) -> None:
        live = releases.read(self._settings).live
        if live is None or live.version != build.version:
            raise StoppedError("another release is live")
        self._require()

    def _require(self) -> Assignment:
        """The assignment.

        Raises:
            StoppedError: this process does not coordinate the same build and topic any more.
        """
        now = self._assigned()
        if self._stopping.is_set() or now is None or now.task != self._task:
            raise StoppedError("another worker coordinates, or another build should serve")
        return now
