"""The coordinator of a build: completes it, swaps it in, and keeps it equal to the documents.

It runs in the leading worker, so there is one at a time. It has no state: when that worker dies,
the next leader starts the recipe again.
"""

import threading
import time
from collections.abc import Callable, Iterable, Set
from contextlib import closing
from typing import TypeVar

import structlog
from confluent_kafka import Consumer, TopicPartition

from consumers import releases
from consumers.errors import CollectionLostError, StoppedError
from consumers.indexing import metrics, plan
from consumers.indexing.embedder import Embedder
from consumers.indexing.milvus import Milvus
from consumers.indexing.plan import Assignment, Difference
from retrail_runtime import kafka
from retrail_runtime.milvus import Build
from retrail_runtime.process import RateLimit
from schemas.documents import Document, content_hash, read_change
from schemas.errors import RestartRequiredError, TopicMismatchError
from schemas.settings import Settings
from schemas.topics import Topics

log = structlog.get_logger(__name__)

T = TypeVar("T")

TICK = 0.1
PROGRESS_SECONDS = 5.0
MAX_REPAIRS = 20
"""Comparisons in a row that may find differences; the second should find none."""


def apply(
    known: dict[str, T], records: Iterable[kafka.Record], keep: Callable[[Document], T]
) -> set[str]:
    """Fold records of ``documents`` into ``known``; returns the ids of the changed documents.

    Args:
        known: a value by id of each document that exists; changed in place.
        keep: the value of a document.
    """
    changed = set()
    for record in records:
        change = read_change(record.key, record.value)
        if change.key is None:
            continue
        changed.add(change.key)
        if change.value is None:
            known.pop(change.key, None)
        else:
            known[change.key] = keep(change.value)
    return changed


class DocumentHashes:
    """Content hash by document id, as of the last :meth:`catch_up`; for one thread.

    Attributes:
        hashes: of every document that exists; about 150 bytes each.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = Topics.of(settings).documents
        self._next: dict[int, int] = {}
        self.hashes: dict[str, str] = {}

    def catch_up(self) -> set[str]:
        """Read to the end of the topic; returns the ids of the documents that changed.

        Raises:
            BrokerUnavailableError, TopicMismatchError: from Kafka.
        """
        return apply(
            self.hashes, self._new_records(), lambda found: content_hash(found.embedded_text())
        )

    def documents(self, doc_ids: Set[str]) -> dict[str, Document]:
        """The documents with these ids that exist, read from the start of the topic."""
        wanted = {doc_id.encode() for doc_id in doc_ids}
        found: dict[str, Document] = {}
        records = kafka.read_to_end(self._settings, self._topic)
        apply(found, (r for r in records if r.key in wanted), lambda document: document)
        return found

    def _new_records(self) -> Iterable[kafka.Record]:
        for record in kafka.read_to_end(self._settings, self._topic, self._next):
            self._next[record.partition] = record.offset + 1
            yield record


class Coordinator:
    """Coordinates the build that should serve."""

    def __init__(
        self,
        settings: Settings,
        milvus: Milvus,
        assigned: Callable[[], Assignment | None],
        embedder: Callable[[Build], Embedder],
    ) -> None:
        """``assigned`` returns the build while this process leads, otherwise ``None``."""
        self._settings = settings
        self._topic = Topics.of(settings).documents
        self._milvus = milvus
        self._assigned = assigned
        self._embedder = embedder
        self._stopping = threading.Event()
        self._key: tuple[str, str] = ("", "")
        self._documents = DocumentHashes(settings)
        self._compared_at: dict[tuple[str, str], float] = {}
        self._warnings = RateLimit(PROGRESS_SECONDS)

    def run(self, stopping: threading.Event) -> None:
        """Coordinate until stopped.

        Raises:
            BrokerUnavailableError, KafkaException: Kafka failed.
            ModelError: a row is to be repaired, and the model cannot be loaded.
            RestartRequiredError: Milvus was lost for too long, or the build cannot be completed.
        """
        self._stopping = stopping
        while not stopping.wait(TICK):
            assignment = self._assigned()
            if assignment is not None:
                self._coordinate(assignment)

    def _coordinate(self, assignment: Assignment) -> None:
        build, topic_id = assignment.build, assignment.topic_id
        if topic_id != self._key[1]:
            self._documents = DocumentHashes(self._settings)
        self._key = assignment.key
        group = plan.group(self._settings.group("index"), assignment)
        try:
            with closing(kafka.consumer(self._settings, group)) as offsets:
                while not self._stopping.wait(TICK):
                    self._serve(build, offsets)
        except StoppedError:
            log.info("no longer coordinating", collection=build.collection)
        except (CollectionLostError, TopicMismatchError) as error:
            if self._warnings.allows(type(error).__name__):
                log.warning("cannot coordinate", collection=build.collection, error=str(error))

    def _serve(self, build: Build, offsets: Consumer) -> None:
        """Swap the build in unless it serves; keep it loaded, and compare it from time to time."""
        self._require()
        if self._milvus.aliased() != build.collection:
            # A new build, a rollback to this one, or an alias that somebody else moved or dropped.
            self._complete(build, offsets)
        self._milvus.load(build)
        last = self._compared_at.get(self._key)
        if last is None or time.monotonic() >= last + self._settings.index_compare_seconds:
            self._repair(build, self._compare(build, offsets))

    def _complete(self, build: Build, offsets: Consumer) -> None:
        """Complete the build and swap it in.

        1. Take the end offsets of ``documents``, and wait until the group has passed them.
        2. Flush, index, load. (Real Milvus answers no query before.)
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
            f"{len(difference.deletes)} are extra. Check that nothing else writes to this "
            "collection.",
            collection=build.collection,
        )

    def _compare(self, build: Build, offsets: Consumer) -> Difference:
        """Compare, while both sides may change.

        Documents read before the group's end offsets are taken are in the rows once the group has
        passed those; documents that change after the rows were read may be in either state.
        """
        self._documents.catch_up()
        self._await_group(build, offsets)
        rows = self._milvus.hashes(build)
        changed = self._documents.catch_up()
        self._compared_at[self._key] = time.monotonic()
        metrics.COMPARISONS.inc()
        return plan.compare(self._documents.hashes, rows, changed)

    def _repair(self, build: Build, difference: Difference) -> None:
        """Write and delete rows as the topic has them now.

        Documents that change during the repair are left to their partitions; if both write at once,
        the next comparison repairs it.
        """
        if not difference:
            return
        self._require()
        found = self._documents.documents(difference.upserts)
        rows = self._embedder(build).rows(list(found.values()), lambda *_: self._require())
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
        """Wait until the build's group has passed the current end offsets."""
        ends = kafka.offsets(offsets, self._topic)
        partitions = [TopicPartition(self._topic, partition) for partition in ends]
        logged_at = time.monotonic()
        while True:
            self._require()
            answers = offsets.committed(partitions, timeout=kafka.STALL_SECONDS)
            committed = {one.partition: one.offset for one in answers if one.offset >= 0}
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

    def _require_live(self, build: Build) -> None:
        live = releases.read(self._settings).live
        if live is None or live.version != build.version:
            raise StoppedError("another release is live")
        self._require()

    def _require(self) -> None:
        """Raise StoppedError unless this process still coordinates the same build and topic."""
        now = self._assigned()
        if self._stopping.is_set() or now is None or now.key != self._key:
            raise StoppedError("another worker coordinates, or another build should serve")
