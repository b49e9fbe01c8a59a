"""The coordinator of a build: completes it, swaps it in, and keeps it equal to the documents.

It runs in the leading worker, so there is one at a time, and another one when that worker dies. It
has no state: a new coordinator starts the recipe again.
"""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from consumers import releases
from consumers.errors import CollectionLostError, LeaseLostError
from consumers.indexing import metrics, plan
from consumers.indexing.documents import DocumentHashes
from consumers.indexing.embedder import Embedder
from consumers.indexing.milvus import Milvus
from consumers.indexing.plan import Difference
from retrail_runtime import kafka
from retrail_runtime.collection import Build
from schemas.errors import RestartRequiredError
from schemas.settings import Settings
from schemas.topics import Topics

log = structlog.get_logger(__name__)

TICK = 0.1
PROGRESS_SECONDS = 5.0
MAX_REPAIRS = 20
"""Comparisons in a row that may find differences; the second should find none."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The build that should serve, while this process coordinates it."""

    build: Build
    group: str
    embedder: Embedder


class Coordinator(threading.Thread):
    """Coordinates the build of the current assignment.

    Attributes:
        error: what ended the thread, if not :meth:`stop`.
    """

    def __init__(
        self, settings: Settings, milvus: Milvus, assignment: Callable[[], Assignment | None]
    ) -> None:
        super().__init__(name="index-coordinator", daemon=True)
        self.error: BaseException | None = None
        self._settings = settings
        self._topic = Topics.of(settings).documents
        self._milvus = milvus
        self._assignment = assignment
        self._stopping = threading.Event()
        self._documents = DocumentHashes(settings)
        self._compared_at: dict[str, float] = {}

    def stop(self) -> None:
        """End soon; ``join`` waits for it."""
        self._stopping.set()

    def run(self) -> None:
        """Coordinate until stopped."""
        try:
            while not self._stopping.wait(TICK):
                assigned = self._assignment()
                if assigned is not None:
                    self._coordinate(assigned)
        except Exception as error:
            self.error = error

    def _coordinate(self, assigned: Assignment) -> None:
        try:
            with closing(kafka.consumer(self._settings, assigned.group)) as offsets:
                while not self._stopping.wait(TICK):
                    self._serve(assigned, offsets)
        except LeaseLostError:
            log.info("no longer coordinating", collection=assigned.build.collection)
        except CollectionLostError:
            log.warning("collection lost", collection=assigned.build.collection)

    def _serve(self, assigned: Assignment, offsets: Consumer) -> None:
        """Swap the build in unless it serves; keep it loaded, and compare it from time to time."""
        self._require(assigned)
        if self._milvus.aliased() != assigned.build.collection:
            # A new build, a rollback to this one, or an alias that somebody else moved or dropped.
            self._complete(assigned, offsets)
        self._milvus.load(assigned.build)
        last = self._compared_at.get(assigned.build.build_id)
        if last is None or time.monotonic() >= last + self._settings.index_compare_seconds:
            self._repair(assigned, self._compare(assigned, offsets))

    def _complete(self, assigned: Assignment, offsets: Consumer) -> None:
        """Complete the build and swap it in.

        1. Take the end offsets of ``documents``, and wait until the group has passed them.
        2. Write to disk, index, load. (Real Milvus answers no query before.)
        3. Compare ids and hashes with the documents, and repair, until there is no difference.
        4. Probe: a search must find something.
        5. Check that ``live`` still names this version.
        6. Swap the alias.
        """
        build = assigned.build
        started = time.monotonic()
        log.info("completing build", collection=build.collection)
        self._await_group(assigned, offsets)
        self._milvus.make_searchable(build)
        rows = self._repair_until_equal(assigned, offsets)
        if not self._milvus.probe(build):
            raise RestartRequiredError(
                f"{build.collection} has rows, but a search finds none of them.",
                collection=build.collection,
            )
        self._require_live(assigned)
        self._milvus.swap(build)
        seconds = time.monotonic() - started
        metrics.SWAPS.inc()
        metrics.BUILD_SECONDS.observe(seconds)
        log.info(
            "index swapped in", collection=build.collection, rows=rows, seconds=round(seconds, 1)
        )

    def _repair_until_equal(self, assigned: Assignment, offsets: Consumer) -> int:
        for _ in range(MAX_REPAIRS):
            difference = self._compare(assigned, offsets)
            if not difference:
                return len(self._documents.hashes)
            self._repair(assigned, difference)
        raise RestartRequiredError(
            f"{assigned.build.collection} still differs from {self._topic} after {MAX_REPAIRS} "
            f"repairs: {len(difference.upserts)} documents are missing or different, "
            f"{len(difference.deletes)} are extra. Does something else write to this collection?",
            collection=assigned.build.collection,
        )

    def _compare(self, assigned: Assignment, offsets: Consumer) -> Difference:
        """Compare, while both sides may change.

        Documents read before the group's end offsets are taken are in the rows, once the group has
        passed those; documents that change after the rows were read may be in either state.
        """
        self._documents.catch_up()
        self._await_group(assigned, offsets)
        rows = self._milvus.hashes(assigned.build)
        changed = self._documents.catch_up()
        self._compared_at[assigned.build.build_id] = time.monotonic()
        metrics.COMPARISONS.inc()
        return plan.compare(self._documents.hashes, rows, changed)

    def _repair(self, assigned: Assignment, difference: Difference) -> None:
        """Write and delete rows as the topic has them now.

        A document that changes at this moment is left to its partition's owner; should both write
        at once, the next comparison finds it.
        """
        if not difference:
            return
        self._require(assigned)
        found = self._documents.documents(difference.upserts)
        rows = assigned.embedder.rows(list(found.values()), lambda *_: self._require(assigned))
        changed = self._documents.catch_up()
        upserts = [row for row in rows if row.doc_id not in changed]
        deletes = (difference.deletes | difference.upserts - found.keys()) - changed
        self._milvus.upsert(assigned.build, upserts)
        self._milvus.delete(assigned.build, sorted(deletes))
        metrics.REPAIRS.labels("upsert").inc(len(upserts))
        metrics.REPAIRS.labels("delete").inc(len(deletes))
        log.warning(
            "collection repaired",
            collection=assigned.build.collection,
            upserted=len(upserts),
            deleted=len(deletes),
        )

    def _await_group(self, assigned: Assignment, offsets: Consumer) -> None:
        """Wait until the build's group has passed the end offsets of now."""
        ends = kafka.offsets(offsets, self._topic)
        partitions = [TopicPartition(self._topic, partition) for partition in ends]
        logged_at = time.monotonic()
        while True:
            self._require(assigned)
            committed = self._committed(offsets, partitions)
            if plan.has_passed(committed, ends):
                return
            if time.monotonic() - logged_at >= PROGRESS_SECONDS:
                logged_at = time.monotonic()
                log.info(
                    "building",
                    collection=assigned.build.collection,
                    records_left=plan.remaining(committed, ends),
                    records=sum(end - low for low, end in ends.values()),
                )
            self._stopping.wait(TICK)

    def _committed(self, offsets: Consumer, partitions: list[TopicPartition]) -> dict[int, int]:
        try:
            answers = offsets.committed(partitions, timeout=kafka.STALL_SECONDS)
        except KafkaException as error:
            raise RestartRequiredError(
                f"Kafka does not return the offsets of a build: {error}", topic=self._topic
            ) from error
        return {answer.partition: answer.offset for answer in answers if answer.offset >= 0}

    def _require_live(self, assigned: Assignment) -> None:
        live = releases.read(self._settings).live
        if live is None or live.version != assigned.build.version:
            raise LeaseLostError("another release is live")
        self._require(assigned)

    def _require(self, assigned: Assignment) -> None:
        """Raise LeaseLostError unless this process still coordinates this build."""
        now = self._assignment()
        if self._stopping.is_set() or now is None or now.build.build_id != assigned.build.build_id:
            raise LeaseLostError("another worker coordinates, or another build should serve")
