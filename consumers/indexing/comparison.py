"""Compares a collection with the documents, and repairs it.

Both sides are read in pages in the order of ids, so memory does not grow with the collection.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import ClassVar

import structlog

from consumers.indexing import metrics, plan
from consumers.indexing.embedder import Embedder
from consumers.indexing.milvus import PAGE, Milvus
from consumers.indexing.plan import Difference
from retrail_runtime import kafka
from retrail_runtime.kafka import Record
from retrail_runtime.milvus import Build
from retrail_runtime.mirror import Row, Table, TopicMirror, rows_of
from schemas.base import Change
from schemas.documents import Document, read_change

log = structlog.get_logger(__name__)

IDS_AT_ONCE = 1000
"""Ids in one filter expression."""


class DocumentHashes(TopicMirror):
    """The fingerprint of every document, by id, and the place of its last record.

    A deleted document has no hash; its id stays, so that a row of it is found.

    Attributes:
        changed: ids of the documents whose records are read within :meth:`noting`.
    """

    table: ClassVar[Table] = Table(
        "hashes",
        ("doc_id TEXT", "hash TEXT", "partition INTEGER NOT NULL", "offset INTEGER NOT NULL"),
        indices=("partition, doc_id",),
    )
    changed: set[str] | None = None

    def decode(self, record: Record) -> Change[Row]:
        """The row of a document. An invalid record deletes; the ingest dead-letters it."""
        change = read_change(record.key, record.value)
        if change.key is None:
            return Change(None, None)
        if self.changed is not None:
            self.changed.add(change.key)
        found = change.value.fingerprint() if change.value else None
        return Change(change.key, (found, record.partition, record.offset))

    @contextmanager
    def noting(self) -> Iterator[set[str]]:
        """The ids of the documents that change meanwhile, as of the last catch-up."""
        noted: set[str] = set()
        self.changed = noted
        try:
            yield noted
        finally:
            self.changed = None

    def page(self, after: str) -> dict[str, str]:
        """Hash by id of the next :data:`PAGE` documents, in the order of ids."""
        select = "SELECT doc_id, hash FROM hashes WHERE doc_id > ? AND hash IS NOT NULL "
        with self.reading() as db:
            return dict(db.execute(f"{select} ORDER BY doc_id LIMIT {PAGE}", (after,)))

    def in_partition(self, number: int) -> Iterator[dict[str, str | None]]:
        """Hash by id, in pages, of the documents whose last record is in this partition."""
        select = "SELECT doc_id, hash FROM hashes WHERE partition = ? AND doc_id > ?"
        after = ""
        while True:
            with self.reading() as db:
                limit = f"ORDER BY doc_id LIMIT {IDS_AT_ONCE}"
                found = dict(db.execute(f"{select} {limit}", (number, after)))
            if not found:
                return
            yield found
            after = max(found)

    def documents(self, doc_ids: Iterable[str]) -> dict[str, Document]:
        """The documents with these ids that exist, read from the topic."""
        select = "SELECT partition, offset FROM hashes WHERE hash IS NOT NULL AND doc_id"
        with self.reading() as db:
            places = set(rows_of(db, select, doc_ids))
        found: dict[str, Document] = {}
        for partition in {partition for partition, _ in places}:
            offsets = sorted(offset for of, offset in places if of == partition)
            records = kafka.read_to_end(
                self._settings, self.topic, {partition: offsets[0]}, {partition: offsets[-1] + 1}
            )
            for record in records:
                if (partition, record.offset) in places:
                    change = read_change(record.key, record.value)
                    if change.key is not None and change.value is not None:
                        found[change.key] = change.value
        return found


class Comparison:
    """Compares the rows of one build with the documents; for one thread.

    Both sides may change meanwhile. Documents that were read before the end offsets of the group
    are in the rows once the group has passed those; documents that change after the rows were read
    may be in either state, and are left to the group.

    Attributes:
        rows: of the collection, when all of them were last compared.
        await_group: returns once the build's group has passed the current end offsets.
    """

    def __init__(
        self,
        build: Build,
        milvus: Milvus,
        documents: DocumentHashes,
        embedder: Callable[[Build], Embedder],
        *,
        await_group: Callable[[], None],
        require: Callable[[], object],
    ) -> None:
        """Compare nothing yet.

        Args:
            await_group: see above.
            require: called between short steps; raises StoppedError.
        """
        self._build = build
        self._milvus = milvus
        self._documents = documents
        self._embedder = embedder
        self.await_group = await_group
        self._require = require
        self._after, self._read = "", 0
        self.rows = 0

    def whole(self) -> int:
        """Compare all rows; returns how many differed, and are repaired now."""
        rows = repaired = 0
        with self._changes() as changed:
            after: str | None = ""
            while after is not None:
                after, read, some = self._page(after, changed)
                rows, repaired = rows + read, repaired + some
        self.rows = rows
        return repaired

    def next_page(self) -> int:
        """Compare the next :data:`PAGE` rows, from the first ones again after the last."""
        with self._changes() as changed:
            after, read, repaired = self._page(self._after, changed)
        self._read += read
        if after is None:
            self.rows, self._read = self._read, 0
        self._after = after or ""
        return repaired

    def partitions(self, numbers: Iterable[int]) -> int:
        """Compare the rows of the documents in these partitions of the topic."""
        repaired = 0
        with self._changes() as changed:
            for number in numbers:
                for page in self._documents.in_partition(number):
                    self._require()
                    rows = self._milvus.hashes_of(self._build, page)
                    self._documents.catch_up()
                    expected = {doc_id: found for doc_id, found in page.items() if found}
                    repaired += self._repair(plan.compare(expected, rows, changed), changed)
        return repaired

    @contextmanager
    def _changes(self) -> Iterator[Set[str]]:
        self._documents.catch_up()
        self.await_group()
        with self._documents.noting() as changed:
            yield changed
        metrics.COMPARISONS.inc()

    def _page(self, after: str, changed: Set[str]) -> tuple[str | None, int, int]:
        """Compare one page.

        Returns:
            Its last id (``None``: the end), the number of its rows, and how many differed.
        """
        self._require()
        rows = self._milvus.page(self._build, after)
        self._documents.catch_up()
        expected = self._documents.page(after)
        last = min((max(some) for some in (rows, expected) if len(some) == PAGE), default=None)
        difference = plan.compare(_up_to(expected, last), _up_to(rows, last), changed)
        return last, len(rows), self._repair(difference, changed)

    def _repair(self, difference: Difference, changed: Set[str]) -> int:
        """Write and delete rows as the topic has them now; returns how many.

        If both this and the group write a document at once, the next comparison repairs it.
        """
        if not difference:
            return 0
        self._require()
        found = self._documents.documents(difference.upserts)
        embedder = self._embedder(self._build)
        rows = embedder.rows(list(found.values()), lambda *_: self._require())
        self._documents.catch_up()
        upserts = [row for row in rows if row.doc_id not in changed]
        deletes = (difference.deletes | difference.upserts - found.keys()) - changed
        self._milvus.upsert(self._build, upserts)
        self._milvus.delete(self._build, sorted(deletes))
        metrics.REPAIRS.labels("upsert").inc(len(upserts))
        metrics.REPAIRS.labels("delete").inc(len(deletes))
        log.warning(
            "collection repaired",
            collection=self._build.collection,
            upserted=len(upserts),
            deleted=len(deletes),
        )
        return len(difference.upserts) + len(difference.deletes)


def _up_to(found: Mapping[str, str], last: str | None) -> Mapping[str, str]:
    if last is None:
        return found
    return {doc_id: content for doc_id, content in found.items() if doc_id <= last}
