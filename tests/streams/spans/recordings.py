"""Recorded spans of real agents, and the pairs of the same agent on our own client."""

import gzip
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from retrail import Publisher, outbox
from schemas.pairs import LabelledPair
from schemas.settings import Settings
from streams.events import read_published
from streams.importing.importer import Importer
from streams.importing.normalise import Part
from streams.importing.offline import mine
from tests.retrail.conftest import FakeProducer
from tests.streams.spans.agents import ANSWER, RESULTS, SCRIPT

FOLDER = Path(__file__).with_name("recorded")
RECORDED = sorted(path.name.partition(".")[0] for path in FOLDER.glob("*.jsonl.gz"))


SERVED = sorted(f"served/{path.name.partition('.')[0]}" for path in FOLDER.glob("served/*.gz"))
"""Agents behind `retrail serve`, with our callback handler."""


def lines_of(name: str) -> list[str]:
    """The requests of a recording, one span each, in the order in which the spans ended."""
    return gzip.decompress((FOLDER / f"{name}.jsonl.gz").read_bytes()).decode().splitlines()


def essence(pairs: list[LabelledPair]) -> list[tuple[Any, ...]]:
    """Query, positive, negatives, verdict and tokens of each pair, in their order."""
    return [(p.query, p.positive, p.negatives, p.verdict, p.reasoning_tokens) for p in pairs]


def pairs_of(folder: Path, lines: list[str]) -> list[LabelledPair]:
    """The pairs that `retrail mine` makes of a file with these lines."""
    path = folder / "spans.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return [*mine(Importer("otlp", strict=True).read([path]), Settings())]


def own_client() -> list[LabelledPair]:
    """The pairs of the scripted agent with :class:`retrail.Publisher`."""
    with pytest.MonkeyPatch.context() as patch:

        class Producers(FakeProducer):
            made: ClassVar[list[FakeProducer]] = []

        patch.setattr(outbox, "Producer", Producers)
        with Publisher(agent="keeper", model="scripted-1") as publisher:
            with publisher.trajectory("own") as trajectory:
                for turn in SCRIPT:
                    if turn.tool and turn.text:
                        trajectory.reason(turn.text)
                    if turn.tool == "search":
                        trajectory.search(turn.argument, RESULTS[turn.argument])
                    elif turn.tool:
                        trajectory.browse(turn.argument)
                trajectory.answer(ANSWER)
            assert publisher.flush(10) == 0
    [producer] = Producers.made
    events = [read_published(value)[0] for _, _, value in producer.records]
    assert [json.loads(value)["seq"] for _, _, value in producer.records] == [*range(len(events))]
    return [*mine([Part(events)], Settings())]
