"""Judged-events logs for tests of the fold: shuffled and repeated, as a partition has them."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from hypothesis import strategies as st

from schemas.judged import Tick
from schemas.pairs import LabelledPair
from streams.mine.fold import Fold
from streams.mine.trajectories import Limits
from tests.streams.fakes import LOG

LIMITS = Limits(gap_ms=1_000, idle_ms=60_000, age_ms=600_000, events=200)

SOURCE = {"source_topic_id": LOG, "source_partition": 0}
"""The log that events come from."""

TICK = Tick().to_json()
"""Time passes up to its append."""

DOC_IDS = [f"d{number}" for number in range(8)]


@dataclass(frozen=True)
class LogRecord:
    """One record of a partition."""

    offset: int
    timestamp: int
    value: bytes


def search(query: str, *doc_ids: str) -> dict[str, Any]:
    """A search whose hits have ranks 1, 2, 3, …"""
    hits = [{"doc_id": doc_id, "rank": rank} for rank, doc_id in enumerate(doc_ids, 1)]
    return {"type": "search", "query": query, "hits": hits}


def browse(doc_id: str, **judgement: str) -> dict[str, Any]:
    """A browse; ``verdict`` only as under judge none."""
    return {"type": "browse", "doc_id": doc_id, **judgement}


def reasoning(about: str | None, verdict: str | None = None, tokens: int = 5) -> dict[str, Any]:
    """A reasoning as the local judge passes it on."""
    judged = {"verdict": verdict, "judge": "local", "judge_version": "1"} if verdict else {}
    return {"type": "reasoning", "about": about, "tokens": tokens, **judged}


def end(outcome: str = "unknown") -> dict[str, Any]:
    """The end."""
    return {"type": "end", "outcome": outcome}


def numbered(trajectory_id: str, steps: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Steps of one trajectory with their envelopes, but for source offset and time."""
    return [
        {
            "event_id": f"{trajectory_id}-{seq}",
            "trajectory_id": trajectory_id,
            "seq": seq,
            "occurred_at": "2026-01-01T00:00:00Z",
            "agent": {"name": "a", "model": "m"},
            "tenant": "",
            "schema_version": "1.0",
            **step,
        }
        for seq, step in enumerate(steps)
    ]


def unnumbered(
    events: Iterable[dict[str, Any]], trajectory_id: str | None = None
) -> list[dict[str, Any]]:
    """The same steps without numbers; no reasoning names the document that it is about."""
    found = []
    for event in events:
        one = {name: value for name, value in event.items() if name not in ("seq", "about")}
        if event.get("about"):
            one["about_previous"] = True
        found.append(one | ({"trajectory_id": trajectory_id} if trajectory_id else {}))
    return found


def written(events: Iterable[dict[str, Any]], step_ms: int = 1) -> list[LogRecord]:
    """Events as they stand on the topic, ``step_ms`` apart; ``None`` stands for a tick."""
    return [
        LogRecord(offset, offset * step_ms, TICK)
        if event is None
        else judged_record(offset, event, source=offset, time=offset * step_ms)
        for offset, event in enumerate(events)
    ]


def judged_record(
    offset: int, event: dict[str, Any], source: int, time: int, **named: Any
) -> LogRecord:
    """An event as the judge wrote it; ``named``: fields of its source."""
    return LogRecord(offset, time, judged_value(event, source, time, **named))


def judged_value(event: dict[str, Any], source: int, time: int, **named: Any) -> bytes:
    """The value of such a record."""
    place = {"source_offset": source, "source_time": time}
    return orjson.dumps(event | SOURCE | place | named)


def folded(log: Iterable[LogRecord], fold: Fold | None = None) -> list[LabelledPair]:
    """All pairs of a log, with all time passed after it."""
    fold = fold or Fold(limits=LIMITS)
    pairs = [
        pair for record in log for pair in fold.apply(record.offset, record.timestamp, record.value)
    ]
    return pairs + fold.close_all()


def contents(pairs: Iterable[LabelledPair]) -> dict[str, LabelledPair]:
    """Pairs by id, without the offsets that depend on where on the log they stood.

    Of several with one id the first counts, so a later one that differs is an error.
    """
    found: dict[str, LabelledPair] = {}
    for pair in pairs:
        assert found.setdefault(pair.pair_id, pair.content()) == pair.content()
    return found


_doc = st.sampled_from(DOC_IDS)
_verdict = st.sampled_from(["relevant", "irrelevant", "unknown"])
_browsed = st.builds(
    lambda doc_id, verdict: [browse(doc_id)] + ([reasoning(doc_id, verdict)] if verdict else []),
    _doc,
    st.one_of(st.none(), _verdict),
)
_searched = st.builds(
    lambda query, doc_ids: [search(query, *doc_ids)],
    st.sampled_from(["q1", "q2", "q3"]),
    st.lists(_doc, max_size=6),
)
_thought = st.just([reasoning(None)])
_step = st.just([{"type": "other", "name": "calculator"}])
_steps = st.lists(st.one_of(_browsed, _searched, _browsed, _thought, _step), max_size=10)

trajectory_steps = st.builds(
    lambda groups, ending: [step for group in groups for step in group] + ending,
    _steps,
    st.sampled_from([[end("correct")], [end()], [{"type": "answer"}, end("incorrect")]]),
)
"""The steps of one trajectory that ends."""

trajectories = st.lists(trajectory_steps, min_size=1, max_size=5).map(
    lambda all_steps: [numbered(f"t{number}", steps) for number, steps in enumerate(all_steps)]
)
"""Several trajectories, each in order."""


def fruitful(rng: random.Random, count: int) -> list[list[dict[str, Any]]]:
    """Trajectories in which every browse gives a pair, some of them without an end."""
    trajectories = []
    for number in range(count):
        steps: list[dict[str, Any]] = []
        for _ in range(rng.randrange(1, 5)):
            doc_ids = rng.sample(DOC_IDS, 4)
            steps += [search(rng.choice("abc"), *doc_ids), browse(doc_ids[0])]
            steps.append(reasoning(doc_ids[0], rng.choice(["relevant", "irrelevant"])))
        trajectories.append(numbered(f"t{number}", steps + [end()] * rng.randrange(2)))
    return trajectories


def interleaved(events: list[list[dict[str, Any]]], rng: random.Random) -> list[dict[str, Any]]:
    """One log of several trajectories, each in its own order."""
    left, log = [list(reversed(one)) for one in events], []
    while left := [one for one in left if one]:
        log.append(rng.choice(left).pop())
    return log


def disturbed(log: list[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    """Events moved, and repeated later: by a few places or far, also beyond their end.

    No event is moved before the first one of a numbered trajectory.
    """
    spread = rng.choice([0, 4, 30, len(log)])
    placed = [index + rng.uniform(0, spread) for index in range(len(log))]
    opened = {
        e["trajectory_id"]: at for at, e in zip(placed, log, strict=True) if e.get("seq") == 0
    }
    moved = [
        (max(at, opened.get(event["trajectory_id"], 0)), index, event)
        for index, (at, event) in enumerate(zip(placed, log, strict=True))
    ]
    repeated = [
        (rng.uniform(at, rng.choice([at + 5, len(log) + spread])), len(log) + index, event)
        for at, index, event in moved
        for _ in range(rng.choice([0, 0, 0, 1, 2]))
    ]
    ordered = sorted(moved + repeated, key=lambda one: one[:2])
    return [event for _, _, event in ordered]
