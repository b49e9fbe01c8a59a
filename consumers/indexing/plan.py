"""Which builds of a retriever to create, follow and drop: functions of plain values.

All state is in Milvus and on the topic ``retriever-releases``, so all workers decide alike, also
after a restart.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Literal

from retrail_runtime.milvus import Build

Role = Literal["serving", "next", "candidate", "outgoing", "retired", "abandoned"]
Purpose = Literal["live", "candidate", "none"]

ROLES: dict[tuple[Purpose, bool, bool], Role] = {
    # (purpose, aliased, served)
    ("live", True, True): "serving",
    ("live", True, False): "serving",
    ("live", False, True): "next",
    ("live", False, False): "next",
    ("candidate", True, True): "outgoing",
    ("candidate", True, False): "outgoing",
    ("candidate", False, True): "candidate",
    ("candidate", False, False): "candidate",
    ("none", True, True): "outgoing",
    ("none", True, False): "outgoing",
    ("none", False, True): "retired",
    ("none", False, False): "abandoned",
}
"""The role of a build, by whether it is that of the live release or of the candidate
(:func:`target`), whether the alias points at its collection, and whether it ever did.

- serving: the alias points here, as it should.
- next: to be completed and swapped in; after a rollback a build that served before.
- candidate: to be completed and decided on; or it passed, and waits for an operator.
- outgoing: serves until the next one is complete.
- retired: kept for the grace time, for searches in progress and for a rollback.
- abandoned: superseded before it was complete.
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """The state in Kafka and Milvus.

    Attributes:
        live: the version that should serve; ``None`` if there is no ``live`` record yet.
        candidate: the version that is built beside it (:func:`trainer.data.candidates.kept`).
        aliased: the collection that the alias points at.
        retired: when each retired build was first seen retired, by build id, in seconds.
        now: on the same clock as ``retired``.
        grace: seconds that a retired build is kept.
    """

    live: int | None
    aliased: str | None
    builds: tuple[Build, ...]
    retired: Mapping[str, float]
    now: float
    grace: float
    candidate: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, given the facts.

    Attributes:
        target: the build that should serve, once it is complete.
        candidate: the candidate's build.
        create: version whose collection is missing or is to be built again.
        successor: build id of the collection to create; empty: any.
        follow: builds that consume ``documents``.
        drop: builds whose collection is dropped.
    """

    target: Build | None
    candidate: Build | None
    create: int | None
    successor: str
    follow: tuple[Build, ...]
    drop: tuple[Build, ...]


def target(builds: Iterable[Build], version: int | None) -> Build | None:
    """The build of a version without a successor; of the live one the alias should point at it.

    It does not depend on settings, so workers with different settings agree. Two simultaneous
    requests for a rebuild may leave two such builds: all workers choose the same one, and no
    further one is created.
    """
    own = {build.build_id: build for build in builds if build.version == version}
    last = [build for build in own.values() if build.successor not in own]
    return min(last, key=lambda build: (build.successor != "", build.build_id), default=None)


def role(
    build: Build, target: Build | None, aliased: str | None, candidate: Build | None = None
) -> Role:
    """Look the build up in :data:`ROLES`."""
    purpose: Purpose = "candidate" if build == candidate else "none"
    if build == target:
        purpose = "live"
    return ROLES[purpose, build.collection == aliased, build.served]


def retired_since(facts: Facts) -> dict[str, float]:
    """``retired`` of the next facts: builds that are newly retired get the current time.

    The grace time is a minimum: it begins again after a restart.
    """
    wanted, candidate = target(facts.builds, facts.live), target(facts.builds, facts.candidate)
    return {
        build.build_id: facts.retired.get(build.build_id, facts.now)
        for build in facts.builds
        if role(build, wanted, facts.aliased, candidate) == "retired"
    }


def plan(facts: Facts) -> Plan:
    """Which collection to create, which builds to continue, and which to drop."""
    wanted, candidate = target(facts.builds, facts.live), target(facts.builds, facts.candidate)
    missing = [
        (version, found.successor if found else "")
        for version, found in ((facts.live, wanted), (facts.candidate, candidate))
        if version is not None and (found is None or found.successor)
    ]
    create, successor = missing[0] if missing else (None, "")
    dropped = tuple(build for build in facts.builds if _is_over(build, wanted, candidate, facts))
    return Plan(
        target=wanted,
        candidate=candidate,
        create=create,
        successor=successor,
        follow=tuple(build for build in facts.builds if build not in dropped),
        drop=dropped,
    )


def _is_over(build: Build, wanted: Build | None, candidate: Build | None, facts: Facts) -> bool:
    match role(build, wanted, facts.aliased, candidate):
        case "abandoned":
            return facts.live is not None
        case "retired":
            since = facts.retired.get(build.build_id, facts.now)
            return facts.live is not None and facts.now - since >= facts.grace
        case _:
            return False


def remaining(committed: Mapping[int, int], ends: Mapping[int, tuple[int, int]]) -> int:
    """Number of offsets that a group has not read, compacted ones included.

    Args:
        committed: the group's offsets; without those of partitions that it never committed.
        ends: first and end offset by partition; a partition with equal ones is empty.
    """
    return sum(
        max(0, end - max(low, committed.get(partition, low)))
        for partition, (low, end) in ends.items()
    )


def share_read(committed: Mapping[int, int], ends: Mapping[int, tuple[int, int]]) -> str:
    """The share of the offsets that a group has read, "12%"; "all" if under 1% is missing.

    Args:
        committed, ends: as of :func:`remaining`.
    """
    total = sum(end - low for low, end in ends.values())
    left = remaining(committed, ends)
    return f"{100 * (total - left) // total}%" if left * 100 > total else "all"


@dataclass(frozen=True, slots=True)
class Difference:
    """Rows that a collection lacks or holds with another content (``upserts``), and extra rows."""

    upserts: frozenset[str]
    deletes: frozenset[str]

    def __bool__(self) -> bool:
        """Whether there is anything to repair."""
        return bool(self.upserts or self.deletes)


def compare(
    expected: Mapping[str, str], rows: Mapping[str, str], ignoring: Set[str] = frozenset()
) -> Difference:
    """Compare content hashes by document id.

    Args:
        expected: of the documents on the topic.
        rows: of the collection.
        ignoring: documents that changed while the rows were read: either state is valid.
    """
    return Difference(
        upserts=frozenset(
            doc_id
            for doc_id, found in expected.items()
            if rows.get(doc_id) != found and doc_id not in ignoring
        ),
        deletes=frozenset(rows.keys() - expected.keys() - ignoring),
    )


@dataclass(frozen=True, slots=True)
class Assignment:
    """A build, and the topic that it is built from.

    Attributes:
        topic_id: of ``documents``; another one after the topic was deleted and created again.
        candidate: whether the build is to be decided on, not swapped in.
        serves: whether the alias pointed at the build when Milvus was last looked at.
    """

    build: Build
    topic_id: str
    candidate: bool = False
    serves: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Equal for the same build and topic; properties of the build may change."""
        return self.build.build_id, self.topic_id

    @property
    def task(self) -> tuple[str, str, bool]:
        """Equal for the same work of a coordinator."""
        return (*self.key, self.candidate)


def assignment(
    decided: Plan, facts: Facts, undecided: int | None, topic_id: str | None
) -> Assignment | None:
    """What the leader coordinates: the target; while that serves, the candidate.

    Args:
        undecided: the version of the open candidate.
        topic_id: of ``documents``; ``None``: there is no such topic.
    """
    wanted, candidate = decided.target, decided.candidate
    if wanted is None or topic_id is None:
        return None
    serves = facts.aliased == wanted.collection
    if serves and candidate is not None and candidate.version == undecided:
        return Assignment(candidate, topic_id, candidate=True)
    return Assignment(wanted, topic_id, serves=serves)


def group(index_group: str, followed: Assignment) -> str:
    """Consumer group of a build; a topic that is created again is read from its start.

    Without members (its build was dropped, or its topic is gone) Kafka removes it after
    ``offsets.retention.minutes``.

    Args:
        index_group: group of all index workers (``settings.group("index")``).
    """
    build = followed.build
    return f"{index_group}-{build.collection}-{build.build_id}-{followed.topic_id}"
