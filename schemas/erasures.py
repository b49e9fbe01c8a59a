"""Erasures: whose data must not be used any more (topic ``erasures``, one partition, kept).

A record has no identifier in clear, but its HMAC-SHA256 under the installation's key
(``RETRAIL_ERASE_KEY``). It erases the records below its end offsets; later ones of the same
trajectory, agent or tenant are kept.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from pydantic import Field

from schemas import base
from schemas.base import Contract, Moment
from schemas.errors import ConfigurationError
from schemas.runs import Digest, Range

SubjectKind = Literal["trajectory", "agent", "tenant"]
ErasureId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Erasure(Contract):
    """One erasure.

    Attributes:
        subject: HMAC of kind and identifier.
        key_check: HMAC of a fixed text: a process with another key must not pass over the record.
        ends: end offsets of all topics at that moment; every range starts at 0.
    """

    erasure_id: ErasureId
    kind: SubjectKind
    subject: Digest
    key_check: Digest
    ends: tuple[Range, ...]
    erased_at: Moment


def hashed(key: bytes, kind: str, identifier: str) -> str:
    """The keyed hash of an identifier, 64 hex digits."""
    return hmac.new(key, f"{kind} {identifier}".encode(), hashlib.sha256).hexdigest()


def key_check(key: bytes) -> str:
    """What a record holds of its key."""
    return hashed(key, "check", "")


class Named(Protocol):
    """The agent of a pair."""

    @property
    def name(self) -> str: ...


class PairOfSomebody(Protocol):
    """What of a pair decides whether it is erased."""

    @property
    def trajectory_id(self) -> str: ...
    @property
    def agent(self) -> Named: ...
    @property
    def tenant(self) -> str: ...
    @property
    def sources(self) -> tuple[int, int] | None: ...


class Erasures:
    """The erasures so far: which of them covers a record. A pure function of them and the key."""

    def __init__(self, key: bytes | None = None, known: Sequence[Erasure] = ()) -> None:
        """Index the erasures.

        Raises:
            ConfigurationError: the key is missing, or is not the one of a record.
        """
        self.known = tuple(known)
        if known and (key is None or any(one.key_check != key_check(key) for one in known)):
            raise ConfigurationError(
                "The topic erasures has records under another key. Set RETRAIL_ERASE_KEY (or "
                "RETRAIL_ERASE_KEY_FILE) to the key with which `retrail erase` was run."
            )
        self._key = key or b""
        self._by_subject: dict[str, list[Erasure]] = {}
        for one in known:
            self._by_subject.setdefault(one.subject, []).append(one)
        self._ends = {
            (one.erasure_id, span.topic, span.partition): span.end
            for one in known
            for span in one.ends
        }

    def __len__(self) -> int:
        return len(self.known)

    def covering(self, places: Sequence[tuple[str, int, int]], **subjects: str) -> Erasure | None:
        """The first erasure of one of the subjects that is above one of the places.

        Args:
            places: topic, partition and offset of the record, and of those that it was made from.
            subjects: identifiers by kind: ``trajectory``, ``agent``, ``tenant``.
        """
        for one in self._of(subjects):
            for topic, partition, offset in places:
                if offset < self._ends.get((one.erasure_id, topic, partition), 0):
                    return one
        return None

    def of_pair(
        self, pair: PairOfSomebody, topic: str, place: tuple[int, int] | None, judged: int
    ) -> Erasure | None:
        """The erasure that covers a pair, by its own offset or by those of its judged events.

        Args:
            topic: ``labelled-pairs`` of some revision.
            place: partition and offset of the pair; ``None``: it is not written yet.
            judged: the partition of its judged events.
        """
        if not self.known:
            return None
        source = topic.replace("labelled-pairs", "judged-events")
        places = [(source, judged, pair.sources[0])] if pair.sources else []
        if place is not None:
            places.append((topic, *place))
        return self.covering(
            places, trajectory=pair.trajectory_id, agent=pair.agent.name, tenant=pair.tenant
        )

    def of_import(self, at: Moment, **subjects: str) -> Erasure | None:
        """The erasure that keeps an imported event out: one of its trajectory, or a later one of
        its agent or tenant."""
        for one in self._of(subjects):
            if one.kind == "trajectory" or at <= one.erased_at:
                return one
        return None

    def _of(self, subjects: dict[str, str]) -> list[Erasure]:
        if not self.known:
            return []
        return [
            one
            for kind, identifier in subjects.items()
            for one in self._by_subject.get(hashed(self._key, kind, identifier), ())
        ]


def decode(value: bytes | None) -> Erasure:
    """The erasure of a record.

    Raises:
        InvalidRecordError: the value is none.
    """
    return base.decode(Erasure, value)


def encode(erasure: Erasure) -> tuple[bytes, bytes]:
    """Key and value of an erasure's record."""
    return erasure.erasure_id.encode(), erasure.to_json()
