"""The coordinator of a build: completes it, swaps it in, and keeps it right.

It is whoever owns partition 0 of ``documents`` in the build's group, so there is one at a time, and
another one when it dies. Nothing is remembered: a new coordinator begins the recipe again.
"""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from consumers import releases
from consumers.indexing import build_plan
from consumers.indexing import index_metrics as metrics
from consumers.indexing.build_plan import Difference
from consumers.indexing.embedder import Embedder
from consumers.indexing.index_milvus import Milvus
from consumers.indexing.ledger import Ledger
from retrail_runtime import kafka
from retrail_runtime.milvus_calls import CollectionLostError
from schemas.collection import Build
from schemas.errors import RestartRequiredError
from schemas.settings import Settings
from schemas.topics import Topics

log = structlog.get_logger(__name__)

TICK = 0.1
PROGRESS_SECONDS = 5.0
ROUNDS = 20
"""Comparisons in a row that may find something to repair; the second should find nothing."""


@dataclass(frozen=True, slots=True)
class Duty:
    """The live build, while this process coordinates it."""

    build: Build
    group: str
    embedder: Embedder


class Relieved(Exception):
    """Another worker coordinates now, another release is live, or the worker stops."""


class Coordinator(threading.Thread):
    """Coordinates whatever build ``duty`` names.

    Attributes:
        error: what ended the thread, if not :meth:`stop`.
    """

    def __init__(self, settings: Settings, milvus: Milvus, duty: Callable[[], Duty | None]) -> None:
        super().__init__(name="index-coordinator", daemon=True)
        self.error: BaseException | None = None
        self._settings = settings
        self._topic = Topics.of(settings).documents
        self._milvus = milvus
        self._duty = duty
        self._stopping = threading.Event()
        self._ledger = Ledger(settings)
        self._compared: dict[str, float] = {}

    def stop(self) -> None:
        """End soon; ``join`` waits for it."""
        self._stopping.set()

    def run(self) -> None:
        """Coordinate until stopped."""
        try:
            while not self._stopping.wait(TICK):
                duty = self._duty()
                if duty is not None:
                    self._coordinate(duty)
        except Exception as error:
            self.error = error

    def _coordinate(self, duty: Duty) -> None:
        try:
            with closing(kafka.consumer(self._settings, duty.group)) as offsets:
                if self._milvus.aliased() != duty.build.collection:
                    self._complete(duty, offsets)
                while not self._stopping.wait(TICK):
                    self._serve(duty, offsets)
        except Relieved:
            log.info("no longer coordinating", collection=duty.build.collection)
        except CollectionLostError:
            log.warning("collection is gone", collection=duty.build.collection)

    def _complete(self, duty: Duty, offsets: Consumer) -> None:
        """Swap the build in, complete.

        1. Take the end offsets of ``documents``, and wait until the group has passed them.
        2. Write to disk, index, load. (Real Milvus answers no query before.)
        3. Compare ids and hashes with the documents, and repair, until there is no difference.
        4. Probe: a search must find.
        5. Check that ``live`` still wants this version.
        6. Swap the alias.
        """
        build = duty.build
        began = time.monotonic()
        log.info("completing", collection=build.collection)
        self._await_group(duty, offsets)
        self._milvus.make_searchable(build)
        rows = self._repair_until_equal(duty, offsets)
        if not self._milvus.probe(build):
            raise RestartRequiredError(
                f"{build.collection} has rows, but a search finds none of them."
            )
        self._require_live(duty)
        self._milvus.swap(build)
        seconds = time.monotonic() - began
        metrics.SWAPS.inc()
        metrics.BUILD_SECONDS.observe(seconds)
        log.info(
            "index swapped in", collection=build.collection, rows=rows, seconds=round(seconds, 1)
        )

    def _serve(self, duty: Duty, offsets: Consumer) -> None:
        """Keep the build that serves loaded, and compare it now and then."""
        self._require_duty(duty)
        if self._milvus.aliased() != duty.build.collection:
            # After a rollback to this build, or an alias that was moved or lost behind our back.
            self._complete(duty, offsets)
        self._milvus.load(duty.build)
        last = self._compared.get(duty.build.build_id)
        if last is None or time.monotonic() >= last + self._settings.index_compare_seconds:
            self._repair(duty, self._compare(duty, offsets))

    def _repair_until_equal(self, duty: Duty, offsets: Consumer) -> int:
        for _ in range(ROUNDS):
            difference = self._compare(duty, offsets)
            if not difference:
                return len(self._ledger.hashes)
            self._repair(duty, difference)
        raise RestartRequiredError(
            f"{duty.build.collection} still differs from {self._topic} after {ROUNDS} repairs: "
            f"{len(difference.upserts)} documents are missing or other, {len(difference.deletes)} "
            "too many. Does something else write to this collection?"
        )

    def _compare(self, duty: Duty, offsets: Consumer) -> Difference:
        """Compare, while both sides may change.

        What the ledger knows before the group's end offsets are taken is in the rows, once the
        group has passed those; what the ledger learns after the rows were read may be or not.
        """
        self._ledger.catch_up()
        self._await_group(duty, offsets)
        rows = self._milvus.hashes(duty.build)
        changed = self._ledger.catch_up()
        self._compared[duty.build.build_id] = time.monotonic()
        metrics.COMPARISONS.inc()
        return build_plan.compare(self._ledger.hashes, rows, changed)

    def _repair(self, duty: Duty, difference: Difference) -> None:
        """Write and delete rows as the topic has them now.

        A document that changes in this very moment is left to its partition's owner; should both
        write at once, the next comparison sees it.
        """
        if not difference:
            return
        self._require_duty(duty)
        found = self._ledger.documents(difference.upserts)
        rows = duty.embedder.rows(list(found.values()), lambda *_: self._require_duty(duty))
        changed = self._ledger.catch_up()
        upserts = [row for row in rows if row.doc_id not in changed]
        deletes = (difference.deletes | difference.upserts - found.keys()) - changed
        self._milvus.upsert(duty.build, upserts)
        self._milvus.delete(duty.build, sorted(deletes))
        metrics.REPAIRS.labels("upsert").inc(len(upserts))
        metrics.REPAIRS.labels("delete").inc(len(deletes))
        log.warning(
            "collection repaired",
            collection=duty.build.collection,
            upserted=len(upserts),
            deleted=len(deletes),
        )

    def _require_live(self, duty: Duty) -> None:
        live = releases.read(self._settings).live
        if live is None or live.version != duty.build.version:
            raise Relieved
        self._require_duty(duty)

    def _await_group(self, duty: Duty, offsets: Consumer) -> None:
        """Wait until the build's group has passed the end offsets of now."""
        ends = kafka.offsets(offsets, self._topic)
        partitions = [TopicPartition(self._topic, partition) for partition in ends]
        shown = time.monotonic()
        while True:
            self._require_duty(duty)
            committed = self._committed(offsets, partitions)
            if build_plan.has_passed(committed, ends):
                return
            if time.monotonic() - shown >= PROGRESS_SECONDS:
                shown = time.monotonic()
                log.info(
                    "building",
                    collection=duty.build.collection,
                    records_left=build_plan.remaining(committed, ends),
                    of=sum(end - low for low, end in ends.values()),
                )
            self._stopping.wait(TICK)

    def _committed(self, offsets: Consumer, partitions: list[TopicPartition]) -> dict[int, int]:
        try:
            answers = offsets.committed(partitions, timeout=kafka.STALL_SECONDS)
        except KafkaException as error:
            raise RestartRequiredError(
                f"Kafka does not tell the offsets of a build: {error}"
            ) from error
        return {answer.partition: answer.offset for answer in answers if answer.offset >= 0}

    def _require_duty(self, duty: Duty) -> None:
        now = self._duty()
        if self._stopping.is_set() or now is None or now.build.build_id != duty.build.build_id:
            raise Relieved
