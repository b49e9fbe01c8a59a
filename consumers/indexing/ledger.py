"""Which documents there are: ids and content hashes, folded from the topic ``documents``."""

from collections.abc import Iterable, Set

from consumers.indexing.documents import Change, Poison, read_change
from retrail_runtime import kafka
from schemas.documents import Document
from schemas.settings import Settings
from schemas.topics import Topics


class Ledger:
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
        """Read on to the end of the topic as of now; returns the documents that changed.

        Raises:
            BrokerUnavailableError, TopicMismatchError: from Kafka.
        """
        changed = set()
        for record in kafka.read_to_end(self._settings, self._topic, self._next):
            self._next[record.partition] = record.offset + 1
            change = read_change(record)
            if change.doc_id is None:
                continue
            changed.add(change.doc_id)
            if isinstance(change, Change) and change.document is not None:
                self.hashes[change.doc_id] = change.content_hash
            else:
                self.hashes.pop(change.doc_id, None)
        return changed

    def documents(self, doc_ids: Set[str]) -> dict[str, Document]:
        """Those of ``doc_ids`` that exist now, read from the start of the topic: for repairs."""
        return latest(kafka.read_to_end(self._settings, self._topic), doc_ids)


def latest(records: Iterable[kafka.Record], doc_ids: Set[str]) -> dict[str, Document]:
    """The last state of some documents; those deleted are left out."""
    found: dict[str, Document] = {}
    for record in records:
        change = read_change(record)
        if change.doc_id is None or change.doc_id not in doc_ids:
            continue
        if isinstance(change, Poison) or change.document is None:
            found.pop(change.doc_id, None)
        else:
            found[change.doc_id] = change.document
    return found
