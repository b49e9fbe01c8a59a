"""Judged-events logs of the size and shape of real ones, for the stream benchmarks."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

import orjson

VERDICT_TEXT = (
    "The document says that the historian was born in that town and wrote three books about its "
    "castle, so this answers half of the question. Next I should look for the year of the second."
)

STEPS = 20
"""Events of a trajectory before its end: 12 searches of 10 hits, 4 browses, 4 reasonings."""


def trajectory(number: int) -> list[dict[str, Any]]:
    """The judged events of one trajectory, but for their source offset and time."""
    rng = random.Random(number)
    name = f"trajectory-{number:08d}-3f9c2a17"
    events: list[dict[str, Any]] = []
    for seq in range(STEPS):
        match seq % 5:
            case 3:
                step = {"type": "browse", "doc_id": events[-1]["hits"][rng.randrange(10)]["doc_id"]}
            case 4:
                verdict = rng.choice(["relevant", "relevant", "irrelevant"])
                step = {"type": "reasoning", "about": events[-1]["doc_id"], "tokens": 120}
                step |= {"verdict": verdict, "judge": "local", "judge_version": "1"}
            case _:
                hits = [
                    {"doc_id": str(rng.randrange(10**7)), "rank": rank, "score": 0.5}
                    for rank in range(1, 11)
                ]
                query = f"which historian born in town {number} wrote about question {seq}"
                step = {"type": "search", "query": query, "hits": hits}
        events.append(_envelope(name, seq) | step)
    return [*events, _envelope(name, STEPS) | {"type": "end", "outcome": "correct"}]


def _envelope(name: str, seq: int) -> dict[str, Any]:
    return {
        "event_id": f"{name}-{seq}",
        "trajectory_id": name,
        "seq": seq,
        "occurred_at": "2026-01-01T00:00:00Z",
        "agent": {"name": "agent", "model": "model-30b"},
        "tenant": "acme",
        "schema_version": "1.0",
    }


def interleaved(trajectories: int, open_at_once: int, first: int = 0) -> Iterator[dict[str, Any]]:
    """Events of many trajectories, ``open_at_once`` of them in turn; each ends."""
    upcoming = iter(range(first, first + trajectories))
    running = [iter(trajectory(number)) for number in itertools.islice(upcoming, open_at_once)]
    while running:
        still = []
        for events in running:
            event = next(events, None)
            if event is None:
                number = next(upcoming, None)
                if number is None:
                    continue
                events = iter(trajectory(number))
                event = next(events)
            yield event
            still.append(events)
        running = still


def opened_by_a_whole_one(trajectories: int, open_at_once: int) -> Iterator[dict[str, Any]]:
    """The same after a single first one, whose output marks the start of a worker."""
    return itertools.chain(interleaved(1, 1), interleaved(trajectories - 1, open_at_once, first=1))


def judged(events: Iterator[dict[str, Any]]) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each event as the judge writes it, a millisecond between two."""
    for offset, event in enumerate(events):
        yield event["trajectory_id"].encode(), judged_value(event, offset)


def judged_value(event: dict[str, Any], offset: int) -> bytes:
    """An event as the judge writes it, from that offset of its source."""
    source = {
        "source_topic_id": "AAAAAAAAAAAAAAAAAAAAAA",
        "source_partition": 0,
        "source_offset": offset,
        "source_time": 1_700_000_000_000 + offset,
        # The log's events are spread over partitions, each of which has a part of the offsets.
        "skipped_from": 0,
    }
    return orjson.dumps(event | source)


def published(events: Iterator[dict[str, Any]]) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of events as agents publish them."""
    for event in events:
        yield event["trajectory_id"].encode(), as_published(event)


def as_published(event: dict[str, Any]) -> bytes:
    """An event before its judgement: with a text instead of a verdict."""
    event = {k: v for k, v in event.items() if k not in ("verdict", "judge", "judge_version")}
    if event["type"] == "reasoning":
        del event["tokens"]
        event["text"] = VERDICT_TEXT
    return orjson.dumps(event)
