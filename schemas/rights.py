"""The rights of every role on Kafka: what each one needs, and nothing else.

Kafka derives Describe from Read and from Write. Idempotent producers need no right of their own
since Kafka 3.0, and nothing uses transactions.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from schemas.settings import Settings
from schemas.topics import Topics

Operation = Literal["Read", "Write", "Describe", "DescribeConfigs", "Create"]
RoleName = Literal[
    "judge",
    "mine",
    "train",
    "index",
    "otlp",
    "agent",
    "outcomes",
    "serve",
    "mcp",
    "documents",
    "publish",
    "reader",
    "replay",
    "operator",
]

_DEAD = {"trajectory_events_dlq": "r", "documents_dlq": "r"}
_EVERY_TOPIC: tuple[Operation, ...] = ("Read", "DescribeConfigs", "Create")
_OPERATIONS: dict[str, tuple[Operation, ...]] = {
    "r": ("Read",),
    "w": ("Write",),
    "rw": ("Read", "Write"),
}


@dataclass(frozen=True, slots=True)
class Role:
    """A kind of process or user.

    Attributes:
        what: who has it.
        topics: by field of :class:`Topics` ``r``, ``w`` or ``rw``.
        group: the consumer group that it joins: by revision, or all whose names begin with that of
            the role.
        reads: whether it reads whole topics, in the group ``retrail-reader``, which never commits.
        administers: whether it creates and compares topics.
    """

    what: str
    topics: dict[str, str]
    group: Literal["", "revised", "prefixed"] = ""
    reads: bool = True
    administers: bool = False


ROLES: dict[RoleName, Role] = {
    "judge": Role(
        "`retrail worker judge`",
        {"trajectory_events": "r", "judged_events": "w", "trajectory_events_dlq": "rw"},
        "revised",
    ),
    "mine": Role(
        "`retrail worker mine`",
        {
            "judged_events": "r",
            "labelled_pairs": "w",
            "trajectory_events_dlq": "r",
            "erasures": "r",
        },
        "revised",
    ),
    "train": Role(
        "`retrail worker train`, `retrail train`",
        {
            "labelled_pairs": "r",
            "documents": "r",
            "outcomes": "r",
            "training_runs": "rw",
            "retriever_releases": "rw",
            "trajectory_events_dlq": "r",
            "erasures": "r",
        },
        "prefixed",
    ),
    "index": Role(
        "`retrail worker index`",
        {
            "documents": "r",
            "documents_dlq": "rw",
            "retriever_releases": "rw",
            "trajectory_events_dlq": "r",
        },
        "prefixed",
    ),
    "otlp": Role(
        "`retrail worker otlp`",
        {
            "otlp_spans": "r",
            "agent_spans": "rw",
            "trajectory_events": "w",
            "outcomes": "w",
            "trajectory_events_dlq": "r",
        },
        "prefixed",
    ),
    "agent": Role("agents, with our client", {"trajectory_events": "w"}, reads=False),
    "outcomes": Role("programs that report outcomes", {"outcomes": "w"}, reads=False),
    "serve": Role("`retrail serve`", {"trajectory_events": "w", "otlp_spans": "w"}, reads=False),
    "mcp": Role("`retrail mcp`", {"trajectory_events": "w"}, reads=False),
    "documents": Role(
        "`retrail documents load`", {"documents": "rw", "trajectory_events_dlq": "r"}
    ),
    "publish": Role(
        "`retrail publish`",
        {
            "trajectory_events": "w",
            "documents": "r",
            "trajectory_events_dlq": "r",
            "erasures": "r",
        },
    ),
    "reader": Role(
        "`retrail pairs`, `explain`, `releases`, `dlq list`",
        {
            "judged_events": "r",
            "labelled_pairs": "r",
            "documents": "r",
            "training_runs": "r",
            "retriever_releases": "r",
            "erasures": "r",
            **_DEAD,
        },
    ),
    "replay": Role("`retrail dlq replay`", {"trajectory_events": "w", "documents": "w", **_DEAD}),
    "operator": Role(
        "`retrail up`, `topics`, `doctor`, `restore-check`, `promote`, `rollback`, `dlq skip`, "
        "`erase`",
        {
            "retriever_releases": "w",
            "trajectory_events_dlq": "w",
            "erasures": "w",
            "outcomes": "w",
        },
        administers=True,
    ),
}


@dataclass(frozen=True, slots=True)
class Right:
    """Operations on a topic or consumer group.

    Attributes:
        prefixed: on all whose names begin with ``name``.
    """

    resource: Literal["topic", "group"]
    name: str
    operations: tuple[Operation, ...]
    prefixed: bool = False


def principal(settings: Settings, role: RoleName) -> str:
    """The user name of a role that the printed commands use."""
    return settings.group(role)


def rights(settings: Settings, role: RoleName) -> Iterator[Right]:
    """Everything that a role may do, under the prefix and revision of ``settings``."""
    given, names = ROLES[role], asdict(Topics.of(settings))
    for field, name in names.items():
        access = _OPERATIONS.get(given.topics.get(field, ""), ())
        if given.administers:
            yield Right("topic", name, (*_EVERY_TOPIC, *(o for o in access if o != "Read")))
        elif access:
            yield Right("topic", name, access)
    if given.group:
        revised = given.group == "revised"
        own = settings.group(role, revised=revised)
        yield Right("group", own, ("Read",), prefixed=not revised)
    if given.reads:
        yield Right("group", settings.group("reader"), ("Describe",))
    if role == "documents":
        # `--wait` looks how far the builds of the index are.
        yield Right("group", settings.group("index"), ("Describe",), prefixed=True)
    if given.administers:
        for worker in ("judge", "mine"):
            yield Right("group", settings.group(worker, revised=True), ("Describe",))
