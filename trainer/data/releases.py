"""The state of ``retriever-releases``: releases, decisions and the live one, and its transitions.

``live`` is authoritative; the Milvus alias follows it. A release and a decision are written once
and never change; ``live`` is the only record that is replaced. Every reader refuses the same
invalid records of other programs (:func:`refusal`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from schemas.errors import InputError
from schemas.releases import CandidateDecision, Live, Record, Release

FIRST = 1
"""Version of the first, untrained release."""

GENERATIONS = 5
"""A child is also compared with the release this many generations before it."""

MAX_STEP = 100
"""Largest gap between a new version and the highest one; a single record cannot exhaust them."""


@dataclass(frozen=True, slots=True)
class Releases:
    """The records of retriever-releases.

    Attributes:
        by_version: every release.
        offsets: offset of each release on the topic.
        live: the live release; ``None`` before the first one.
        live_offset: offset of ``live`` on the topic, -1 without one.
        next_offset: of the first unread record.
        earlier: previous ``live`` records and their offsets, unless compacted away.
        decisions: the first decision on each candidate, by version.
    """

    by_version: Mapping[int, Release] = field(default_factory=dict)
    offsets: Mapping[int, int] = field(default_factory=dict)
    live: Live | None = None
    live_offset: int = -1
    next_offset: int = 0
    earlier: tuple[tuple[Live, int], ...] = ()
    decisions: Mapping[int, CandidateDecision] = field(default_factory=dict)

    def with_record(self, record: Record | None, offset: int) -> "Releases":
        """With the record at ``offset``; an invalid (``None``) or refused one changes nothing."""
        known = replace(self, next_offset=offset + 1)
        if record is None or refusal(self, record):
            return known
        if isinstance(record, Live):
            before = ((self.live, self.live_offset),) if self.live else ()
            return replace(known, live=record, live_offset=offset, earlier=(*self.earlier, *before))
        if isinstance(record, CandidateDecision):
            return replace(known, decisions={record.version: record, **self.decisions})
        if record.version in self.by_version:
            return known
        return replace(
            known,
            by_version={**self.by_version, record.version: record},
            offsets={**self.offsets, record.version: offset},
        )

    def lacks_first(self) -> bool:
        """Whether the first release must still be registered or made live.

        With a later release and no ``live``, a refused record has replaced ``live`` and compaction
        has removed the original; only an operator can choose the live release then.
        """
        return self.live is None and all(version == FIRST for version in self.by_version)

    def lineage(self, version: int) -> tuple[int, ...]:
        """``version``, its parent, its parent's parent, … to the first release."""
        chain: list[int] = []
        current: int | None = version
        while current is not None and current in self.by_version and current not in chain:
            chain.append(current)
            current = self.by_version[current].parent
        return tuple(chain)

    def ancestor(self, parent: int) -> int:
        """The fifth release before a child of ``parent`` in its lineage, or the first one."""
        chain = self.lineage(parent)
        return chain[min(GENERATIONS, len(chain)) - 1]

    def is_current(self, version: int) -> bool:
        """Whether the parent of a release is live, and ``live`` was not written after the release.

        A repeated step must not undo a later decision.
        """
        release, live = self.by_version.get(version), self.live
        return (
            release is not None
            and live is not None
            and release.parent == live.version
            and self.live_offset < self.offsets[version]
        )

    def decision(self, version: int) -> str:
        """The last word on a release: the gate's decision, or ``candidate`` before the second."""
        release, second = self.by_version[version], self.decisions.get(version)
        if second is not None:
            return second.decision
        return "candidate" if release.candidate else release.decision

    def run_of(self, version: int) -> str | None:
        """Id of the run that made a version; ``None`` for the first release."""
        release = self.by_version.get(version)
        return release.run_id if release else None


def refusal(known: Releases, record: Record) -> str:
    """Why a record is refused, or an empty string.

    A record of another program, or of another installation with the same topic prefix, must neither
    stop training nor change the live release. A repeated release or decision is no error: the first
    one counts.
    """
    if isinstance(record, Live):
        return _refusal_of_live(known, record)
    if isinstance(record, CandidateDecision):
        release = known.by_version.get(record.version)
        if release is None or not release.candidate or record.decision == "first":
            return f"release {record.version} is not a candidate"
        return ""
    version, parent = record.version, record.parent
    if version in known.by_version:
        written = known.by_version[version]
        if (written.parent, written.run_id, written.model) == (parent, record.run_id, record.model):
            return ""
        return f"release {version} exists (offset {known.offsets[version]}) and never changes"
    if version == FIRST:
        return "" if parent is None else f"release {FIRST} has no parent, the record has {parent}"
    if parent is None:
        return f"it has no parent; only release {FIRST} has none"
    return refusal_of_child(known, parent, version, max(known.by_version, default=0))


def refusal_of_child(known: Releases, parent: int, version: int, highest: int) -> str:
    """Why a new version is refused, or an empty string.

    Args:
        highest: version so far.
    """
    if parent not in known.by_version:
        return f"its parent, release {parent}, does not exist"
    if version > highest + MAX_STEP:
        return f"version {version:,} is more than {MAX_STEP} above the highest, {highest:,}"
    return ""


def _refusal_of_live(known: Releases, live: Live) -> str:
    version = live.version
    if version not in known.by_version:
        return f"live names release {version}, which does not exist"
    if live.by == "operator":
        return ""
    decision = known.decision(version)
    if decision not in ("first", "ship"):
        return (
            f"live names release {version}, which the gate did not ship ({decision}); only "
            f"`retrail promote {version}` makes it live"
        )
    if known.live is None or version == known.live.version or known.is_current(version):
        return ""
    # A trainer that decides alone knows of models that are missing, and so of a foreign `live`.
    if known.by_version[version].candidate or version < known.live.version:
        return f"live names release {version}, but another one became live after it was made"
    return ""


def promoted(known: Releases, version: int, now: datetime) -> Live:
    """``live`` after promoting ``version``; unchanged if it is live already.

    The runs of its lineage leave quarantine. An operator overrides the quality of a release, not
    the integrity of its collection.

    Raises:
        InputError: there is no such release, or its collection failed.
    """
    if version not in known.by_version:
        existing = ", ".join(map(str, sorted(known.by_version))) or "none yet"
        raise InputError(f"There is no release {version}. Releases: {existing}.")
    if known.decision(version) == "failed":
        raise InputError(
            f"Release {version} cannot be promoted: {known.decisions[version].reason}. Its pairs "
            "train the next release."
        )
    live = known.live
    if live is not None and live.version == version:
        return live
    own_runs = {known.run_of(ancestor) for ancestor in known.lineage(version)}
    return Live(
        version=version,
        previous=live.version if live else None,
        why="promoted by an operator",
        by="operator",
        changed_at=now,
        quarantined=tuple(run for run in (live.quarantined if live else ()) if run not in own_runs),
    )


def rolled_back(known: Releases, now: datetime) -> Live:
    """``live`` after a rollback.

    The target is the previously live version, or the parent of the live release if that version was
    itself rolled back. The run of the replaced version is quarantined, unless the target descends
    from it.

    Raises:
        InputError: there is no earlier release.
    """
    live = known.live
    if live is None:
        raise InputError("There is no live release yet, so there is nothing to roll back.")
    target = live.previous
    if target is None or known.run_of(target) in live.quarantined:
        release = known.by_version.get(live.version)
        target = release.parent if release else None
    if target is None or target not in known.by_version:
        raise InputError(
            f"Release {live.version} is the first of its lineage, so there is no release to roll "
            "back to. `retrail promote VERSION` makes another one live."
        )
    left = known.run_of(live.version)
    kept = {known.run_of(ancestor) for ancestor in known.lineage(target)}
    quarantined = [run for run in live.quarantined if run not in kept]
    if left is not None and left not in kept and left not in quarantined:
        quarantined.append(left)
    return Live(
        version=target,
        previous=live.version,
        why=f"rolled back from release {live.version}",
        by="operator",
        changed_at=now,
        quarantined=tuple(quarantined),
    )


def goes_live(known: Releases, version: int) -> bool:
    """Whether a release should become live: the gate shipped it, and it is current."""
    return known.is_current(version) and known.decision(version) == "ship"


def shipped(known: Releases, version: int, now: datetime) -> Live | None:
    """``live`` after a release passed the gate; ``None`` if it does not go live."""
    live = known.live
    if live is None or not goes_live(known, version):
        return None
    return Live(
        version=version,
        previous=live.version,
        why=f"passed the gate: {known.decisions.get(version, known.by_version[version]).reason}",
        changed_at=now,
        quarantined=live.quarantined,
    )
