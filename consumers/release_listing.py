"""Every release with what it came of, down to offsets: ``retrail releases``."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from consumers import releases
from consumers.releases import Releases
from retrail_runtime import kafka
from schemas.releases import Release
from schemas.runs import Range, RunManifest
from schemas.settings import Settings
from schemas.topics import Topics

State = Literal["live", "lineage", "quarantined", "waiting", "aside"]
"""``lineage``: an ancestor of the live release. ``quarantined``: a rollback set its run aside.
``waiting``: it passed the gate, and its parent is live, so it can be promoted as it is.
``aside``: none of these.
"""


@dataclass(frozen=True, slots=True)
class Listed:
    """A release and its run.

    Attributes:
        manifest: of the run that made it; ``None`` for the first release.
        lineage: the release, its parent, its parent's parent, … to the first one.
    """

    release: Release
    manifest: RunManifest | None
    lineage: tuple[int, ...]
    state: State

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Offsets of labelled-pairs that were new to the run."""
        return self.manifest.ranges if self.manifest else ()

    def to_json(self) -> dict[str, Any]:
        """As plain values; pair ids as their numbers, for the manifest holds them all."""
        run: dict[str, Any] | None = None
        if self.manifest:
            run = self.manifest.model_dump(
                mode="json",
                exclude_none=True,
                exclude={"pair_ids", "replayed", "retriever", "parent"},
            )
            run["pairs"] = len(self.manifest.pair_ids)
            run["replayed"] = len(self.manifest.replayed)
        return self.release.model_dump(mode="json", exclude_none=True) | {
            "state": self.state,
            "lineage": list(self.lineage),
            "run": run,
        }


def read(settings: Settings) -> tuple[Releases, list[Listed]]:
    """What is on both topics now.

    Raises:
        BrokerUnavailableError, TopicMismatchError: from Kafka.
    """
    topic = Topics.of(settings).training_runs
    manifests: dict[str, RunManifest] = {}
    for record in kafka.read_to_end(settings, topic):
        try:
            manifest = RunManifest.model_validate_json(record.value or b"")
        except ValueError:
            # The trainer, whose contract it breaks, counts and logs it.
            continue
        manifests.setdefault(manifest.run_id, manifest)
    known = releases.read(settings)
    return known, listed(known, manifests)


def listed(known: Releases, manifests: Mapping[str, RunManifest]) -> list[Listed]:
    """All releases in order of version.

    Args:
        known: what retriever-releases says.
        manifests: by run id.
    """
    live = known.live
    ancestors = known.lineage(live.version) if live else ()
    quarantined = live.quarantined if live else ()

    def state(release: Release) -> State:
        if release.version in ancestors:
            return "live" if release.version == ancestors[0] else "lineage"
        if release.run_id in quarantined:
            return "quarantined"
        waits = release.decision == "pending" and live and release.parent == live.version
        return "waiting" if waits else "aside"

    return [
        Listed(
            release,
            manifests.get(release.run_id or ""),
            known.lineage(version),
            state(release),
        )
        for version, release in sorted(known.by_version.items())
    ]


def offsets(ranges: Iterable[Range]) -> str:
    """Ranges for people: first and last offset of each, by topic and partition.

    >>> offsets([Range(topic="pairs", partition=0, start=5, end=8)])
    'pairs[0] 5 to 7'
    """
    return ", ".join(
        f"{span.topic}[{span.partition}] {span.start:,} to {span.end - 1:,}" for span in ranges
    )
