"""The documents that exist: a fold over the topic ``documents``."""

from collections.abc import Callable, Iterable, Set
from typing import TypeVar

from retrail_runtime import kafka
from schemas.documents import Document, content_hash, read_change
from schemas.settings import Settings
from schemas.topics import Topics

T = TypeVar("T")


def apply(
    known: dict[str, T], records: Iterable[kafka.Record], keep: Callable[[Document], T]
) -> set[str]:
    """Bring ``known`` to the state after ``records``; returns the ids of the changed documents.

    Args:
        known: what is kept of each document that exists, by id; changed in place.
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
        """Read on to the end of the topic as of now; returns the ids of the changed documents.

        Raises:
            BrokerUnavailableError, TopicMismatchError: from Kafka.
        """
        return apply(
            self.hashes, self._new_records(), lambda found: content_hash(found.embedded_text())
        )

    def documents(self, doc_ids: Set[str]) -> dict[str, Document]:
        """Those of ``doc_ids`` that exist now, read from the start of the topic: for repairs."""
        wanted = {doc_id.encode() for doc_id in doc_ids}
        found: dict[str, Document] = {}
        records = kafka.read_to_end(self._settings, self._topic)
        apply(found, (r for r in records if r.key in wanted), lambda document: document)
        return found

    def _new_records(self) -> Iterable[kafka.Record]:
        for record in kafka.read_to_end(self._settings, self._topic, self._next):
            self._next[record.partition] = record.offset + 1
            yield record
