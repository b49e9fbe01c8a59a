"""The coordinator of a build: completes it, swaps it in, and keeps it equal to the documents.

It runs in the leading worker, so there is one at a time, and another one when that worker dies. It
has no state: a new coordinator starts the recipe again.
"""

import threading
import time
from collections.abc import Callable
from contextlib import closing

import structlog
from confluent_kafka import Consumer, TopicPartition

from consumers import releases
from consumers.errors import CollectionLostError, StoppedError
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


class Coordinator:
    """Coordinates the build that should serve."""

    def __init__(
        self,
        settings: Settings,
        milvus: Milvus,
        assigned: Callable[[], Build | None],
        embedder: Callable[[Build], Embedder],
    ) -> None:
        """``assigned`` returns the build while this process leads, else ``None``."""
        self._settings = settings
        self._topic = Topics.of(settings).documents
        self._milvus = milvus
        self._assigned = assigned
        self._embedder = embedder
        self._stopping = threading.Event()
        self._documents = DocumentHashes(settings)
        self._compared_at: dict[str, float] = {}

    def run(self, stopping: threading.Event) -> None:
        """Coordinate until stopped.

        Raises:
            BrokerUnavailableError, KafkaException: Kafka failed.
            ModelError: a row is to be repaired, and the model cannot be loaded.
            RestartRequiredError: Milvus was lost for too long, or the build cannot be completed.
        """
        self._stopping = stopping
        while not stopping.wait(TICK):
            build = self._assigned()
            if build is not None:
                self._coordinate(build)

    def _coordinate(self, build: Build) -> None:
        group = plan.group(self._settings.group("index"), build)
        try:
            with closing(kafka.consumer(self._settings, group)) as offsets:
                while not self._stopping.wait(TICK):
                    self._serve(build, offsets)
        except StoppedError:
            log.info("no longer coordinating", collection=build.collection)
        except CollectionLostError:
            log.warning("collection lost", collection=build.collection)

    def _serve(self, build: Build, offsets: Consumer) -> None:
        """Swap the build in unless it serves; keep it loaded, and compare it from time to time."""
        self._require(build)
        if self._milvus.aliased() != build.collection:
            # A new build, a rollback to this one, or an alias that somebody else moved or dropped.
            self._complete(build, offsets)
        self._milvus.load(build)
        last = self._compared_at.get(build.build_id)
        if last is None or time.monotonic() >= last + self._settings.index_compare_seconds:
            self._repair(build, self._compare(build, offsets))

    def _complete(self, build: Build, offsets: Consumer) -> None:
        """Complete the build and swap it in.

        1. Take the end offsets of ``documents``, and wait until the group has passed them.
        2. Write to disk, index, load. (Real Milvus answers no query before.)
        3. Compare ids and hashes with the documents, and repair, until there is no difference.
        4. Probe: a search must find something.
        5. Check that ``live`` still names this version.
        6. Swap the alias.
        """
        started = time.monotonic()
        log.info("completing build", collection=build.collection)
        self._await_group(build, offsets)
        self._milvus.make_searchable(build)
        rows = self._repair_until_equal(build, offsets)
        if not self._milvus.probe(build):
            raise RestartRequiredError(
                f"{build.collection} has rows, but a search finds none of them.",
                collection=build.collection,
            )
        self._require_live(build)
        self._milvus.swap(build)
        seconds = time.monotonic() - started
        metrics.SWAPS.inc()
        metrics.BUILD_SECONDS.observe(seconds)
        log.info(
            "index swapped in", collection=build.collection, rows=rows, seconds=round(seconds, 1)
        )

    def _repair_until_equal(self, build: Build, offsets: Consumer) -> int:
        for _ in range(MAX_REPAIRS):
            difference = self._compare(build, offsets)
            if not difference:
                return len(self._documents.hashes)
            self._repair(build, difference)
        raise RestartRequiredError(
            f"{build.collection} still differs from {self._topic} after {MAX_REPAIRS} "
            f"repairs: {len(difference.upserts)} documents are missing or different, "
            f"{len(difference.deletes)} are extra. Does something else write to this collection?",
            collection=build.collection,
        )

    def _compare(self, build: Build, offsets: Consumer) -> Difference:
        """Compare, while both sides may change.

        Documents read before the group's end offsets are taken are in the rows, once the group has
        passed those; documents that change after the rows were read may be in either state.
        """
        self._documents.catch_up()
        self._await_group(build, offsets)
        rows = self._milvus.hashes(build)
        changed = self._documents.catch_up()
        self._compared_at[build.build_id] = time.monotonic()
        metrics.COMPARISONS.inc()
        return plan.compare(self._documents.hashes, rows, changed)

    def _repair(self, build: Build, difference: Difference) -> None:
        """Write and delete rows as the topic has them now.

        A document that changes at this moment is left to its partition's owner; should both write
        at once, the next comparison finds it.
        """
        if not difference:
            return
        self._require(build)
        found = self._documents.documents(difference.upserts)
        rows = self._embedder(build).rows(list(found.values()), lambda *_: self._require(build))
        changed = self._documents.catch_up()
        upserts = [row for row in rows if row.doc_id not in changed]
        deletes = (difference.deletes | difference.upserts - found.keys()) - changed
        self._milvus.upsert(build, upserts)
        self._milvus.delete(build, sorted(deletes))
        metrics.REPAIRS.labels("upsert").inc(len(upserts))
        metrics.REPAIRS.labels("delete").inc(len(deletes))
        log.warning(
            "collection repaired",
            collection=build.collection,
            upserted=len(upserts),
            deleted=len(deletes),
        )

    def _await_group(self, build: Build, offsets: Consumer) -> None:
        """Wait until the build's group has passed the end offsets of now."""
        ends = kafka.offsets(offsets, self._topic)
        partitions = [TopicPartition(self._topic, partition) for partition in ends]
        logged_at = time.monotonic()
        while True:
            self._require(build)
            committed = self._committed(offsets, partitions)
            if plan.has_passed(committed, ends):
                return
            if time.monotonic() - logged_at >= PROGRESS_SECONDS:
                logged_at = time.monotonic()
                log.info(
                    "building",
                    collection=build.collection,
                    records_left=plan.remaining(committed, ends),
                    records=sum(end - low for low, end in ends.values()),
                )
            self._stopping.wait(TICK)

    def _committed(self, offsets: Consumer, partitions: list[TopicPartition]) -> dict[int, int]:
        answers = offsets.committed(partitions, timeout=kafka.STALL_SECONDS)
        return {answer.partition: answer.offset for answer in answers if answer.offset >= 0}

    def _require_live(self, build: Build) -> None:
        live = releases.read(self._settings).live
        if live is None or live.version != build.version:
            raise StoppedError("another release is live")
        self._require(build)

    def _require(self, build: Build) -> None:
        """Raise StoppedError unless this process still coordinates this build."""
        now = self._assigned()
        if self._stopping.is_set() or now is None or now.build_id != build.build_id:
            raise StoppedError("another worker coordinates, or another build should serve")
