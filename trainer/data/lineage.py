"""The offset ranges of a run's pairs, computed along the live lineage.

The lineage of a release is its chain of parents. Its model was trained on the ranges of the
lineage's runs; all other pairs are new, including those of held or rejected runs. A rollback
quarantines a run: its ranges are skipped until a release of that run is promoted.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from schemas.releases import Release
from schemas.runs import Range, RunManifest
from trainer.data import releases
from trainer.data.releases import Releases, refusal_of_child

Trigger = Literal["count", "age"]

Spans = Mapping[int, Sequence[tuple[int, int]]]
"""Start and end offsets by partition, sorted and apart."""


@dataclass(frozen=True, slots=True)
class History:
    """All runs in the order of their manifests, and all releases."""

    runs: tuple[RunManifest, ...] = ()
    releases: Releases = field(default_factory=Releases)

    def announced(self, manifest: RunManifest) -> "History":
        """The history with one more manifest; a refused manifest changes nothing.

        The first manifest of a run and of a version counts. A second one was written by a trainer
        whose lease had expired; it is ignored.
        """
        taken = any(
            run.run_id == manifest.run_id or run.version == manifest.version for run in self.runs
        )
        if taken or self.refusal(manifest):
            return self
        return replace(self, runs=(*self.runs, manifest))

    def refusal(self, manifest: RunManifest) -> str:
        """Why a manifest is refused, or an empty string."""
        highest = self.next_version() - 1
        return refusal_of_child(self.releases, manifest.parent, manifest.version, highest)

    def next_version(self) -> int:
        """Version of the next run: one above the highest."""
        known = [run.version for run in self.runs]
        return 1 + max([*known, *self.releases.by_version], default=0)

    def run(self, run_id: str | None) -> RunManifest | None:
        """The run with this id; ``None`` if it is unknown."""
        return next((run for run in self.runs if run.run_id == run_id), None)

    def last(self) -> RunManifest | None:
        """The most recent run."""
        return self.runs[-1] if self.runs else None


def unfinished(history: History, run: RunManifest) -> bool:
    """Whether a run has no release yet, or its release should be live and is not.

    The index worker, not the trainer, makes a candidate live.
    """
    known = history.releases
    release = known.by_version.get(run.version)
    return release is None or (not release.candidate and releases.goes_live(known, release.version))


def trained(history: History, version: int) -> list[Range]:
    """The ranges that the model of ``version`` was trained on, over all runs of its lineage."""
    known = history.releases
    return _ranges(history, map(known.run_of, known.lineage(version)))


def without_run(history: History, version: int) -> list[Release]:
    """Releases of the lineage of ``version`` whose run has no manifest on the topic."""
    known = history.releases
    found = (known.by_version[ancestor] for ancestor in known.lineage(version))
    return [one for one in found if one.run_id is not None and history.run(one.run_id) is None]


def first_of(history: History, version: int) -> int:
    """The newest release of the lineage of ``version`` that descends from known runs alone."""
    ancestors = history.releases.lineage(version)
    return next((v for v in ancestors if not without_run(history, v)), ancestors[-1])


def quarantined(history: History) -> list[Range]:
    """The ranges of the runs that a rollback quarantined."""
    live = history.releases.live
    return _ranges(history, live.quarantined if live else ())


def new_ranges(history: History, topic: str, ends: Mapping[int, int]) -> tuple[Range, ...]:
    """The ranges of ``topic`` for the next run, by partition and offset, none empty.

    All offsets below ``ends``, without those that the live lineage was trained on and those that
    are quarantined. Usually that is one range per partition. After an operator has switched to
    another branch of releases, pairs that only the abandoned branch was trained on are new again,
    although they lie before the end of the live lineage.

    Raises:
        ValueError: there is no live release.
    """
    live = history.releases.live
    if live is None:
        raise ValueError("there is no live release")
    taken = merged([*trained(history, live.version), *quarantined(history)], topic)
    found: list[Range] = []
    for partition, end in sorted(ends.items()):
        start = 0
        for first, after in (*taken.get(partition, ()), (end, end)):
            if start < min(first, end):
                found.append(
                    Range(topic=topic, partition=partition, start=start, end=min(first, end))
                )
            start = max(start, after)
    return tuple(found)


def seen_ends(history: History, topic: str, ends: Mapping[int, int]) -> dict[int, int]:
    """Start offsets for counting pending pairs: the ends of all runs, whatever their result.

    Args:
        ends: of the topic's partitions. Ranges beyond them belong to another topic and are ignored,
            or they would block all triggers.
    """
    spans = (span for run in history.runs for span in run.ranges)
    return ends_of((s for s in spans if s.end <= ends.get(s.partition, 0)), topic)


def ends_of(ranges: Iterable[Range], topic: str) -> dict[int, int]:
    """Largest end of each partition of ``topic``."""
    ends: dict[int, int] = {}
    for span in ranges:
        if span.topic == topic:
            ends[span.partition] = max(span.end, ends.get(span.partition, 0))
    return ends


def merged(ranges: Iterable[Range], topic: str) -> Spans:
    """The offsets of a topic in ``ranges``, which may overlap."""
    found: dict[int, list[tuple[int, int]]] = {}
    for span in sorted(ranges, key=lambda span: (span.partition, span.start)):
        if span.topic != topic:
            continue
        spans = found.setdefault(span.partition, [])
        if spans and span.start <= spans[-1][1]:
            start, end = spans.pop()
            spans.append((start, max(end, span.end)))
        else:
            spans.append((span.start, span.end))
    return found


def holds(spans: Spans, partition: int, offset: int) -> bool:
    """Whether a place is in the spans."""
    some = spans.get(partition, ())
    index = bisect_right(some, offset, key=lambda span: span[0]) - 1
    return index >= 0 and offset < some[index][1]


def due(
    count: int, oldest: int | None, now: int, *, min_pairs: int, max_age_seconds: float
) -> Trigger | None:
    """The trigger of a run, or ``None`` if no run is due.

    Args:
        count: number of pending pairs that could train.
        oldest: append time of the oldest, in milliseconds since the epoch.
        now: in milliseconds since the epoch.
    """
    if count >= min_pairs:
        return "count"
    if oldest is not None and now - oldest >= max_age_seconds * 1000:
        return "age"
    return None


def _ranges(history: History, run_ids: Iterable[str | None]) -> list[Range]:
    """The ranges of the runs that have a manifest."""
    runs = map(history.run, run_ids)
    return [span for run in runs if run is not None for span in run.ranges]
