"""From "a run is due" to its first step, in a process of its own.

    python -m benchmarks.growth.pairs ALL NEW FOLDER

Writes the local copies of a trainer without a broker: ALL pairs, the last NEW of them new to the
live lineage, about short made-up documents. Prints the seconds of each step and the peak memory as
JSON. Copies that are in FOLDER already are used again.
"""

import json
import random
import resource
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.index import corpus
from consumers.training import comparison
from consumers.training.mirrors import DocumentMirror, OutcomeMirror, PairMirror
from retrail_runtime.kafka import Record
from retrail_runtime.mirror import _BOOKKEEPING, TopicMirror
from schemas.events import Agent
from schemas.pairs import LabelledPair, encode, pair_id
from schemas.runs import Range
from schemas.settings import Settings
from trainer.data import lineage
from trainer.data.examples import dump_file
from trainer.data.lineage import History
from trainer.data.selection import Selector, rules_of
from trainer.fit import finetune
from trainer.model.encoder import Encoder, Vectors
from trainer.model.presets import PRESETS

PARTITIONS = 4
DOCUMENTS = 100_000
BATCH = 1000


def main(count: int, new: int, folder: Path) -> None:
    """Measure, and print the figures."""
    settings = Settings()
    pairs, began = local(PairMirror, folder), time.perf_counter()
    if not pairs.next:
        stored(pairs, made(count))
    filling = time.perf_counter() - began
    documents = local(DocumentMirror, folder)
    if not documents.next:
        stored(documents, (one for one in documents_of()))
    ranges, earlier = split(pairs, new)
    lineage.trained = lambda *_: earlier
    outcomes = local(OutcomeMirror, folder)
    mirrors: Any = SimpleNamespace(pairs=pairs, documents=documents, outcomes=outcomes)
    before = peak()
    seconds: dict[str, float] = {"pairs stored a second": count / filling}
    since = {span.partition: span.start for span in ranges}
    due = time.perf_counter()

    def step(name: str, work: Any) -> Any:
        began = time.perf_counter()
        found = work()
        seconds[f"{name}, s"] = time.perf_counter() - began
        return found

    pending = step("count", lambda: pairs.pending(since))
    step("newest pair", lambda: pairs.newest(earlier))
    questions = step(
        "held-out queries",
        lambda: comparison.questions(settings, mirrors, History(), 1, ranges),
    )

    def encode(queries: Sequence[str]) -> Vectors:
        model = Encoder.load(settings.model, max_tokens=settings.index_max_tokens)
        return model.encode_queries(queries)

    selector = Selector(pairs, documents, rules_of(settings), 1, 0, encode)
    selected = step("select", lambda: selector.select(ranges, earlier))
    step("freeze", lambda: dump_file(selected.examples))
    config = finetune.config_of(settings, PRESETS["minilm"])
    batches = step("batches", lambda: finetune.plan(selected.examples, config))
    print(
        json.dumps(
            seconds
            | {
                "due to first step, s": time.perf_counter() - due,
                "peak MB": peak(),
                "MB before": before,
                "pending": pending.count,
                "queries": len(questions.held_out),
                "examples": len(selected.examples),
                "steps": len(batches),
            }
        )
    )


def local(mirror: type[TopicMirror], folder: Path) -> Any:
    """A local copy that follows no topic."""
    found = mirror.__new__(mirror)
    found.topic = mirror.table.name
    found.path = folder / f"{found.topic}.sqlite"
    folder.mkdir(parents=True, exist_ok=True)
    found._db = sqlite3.connect(found.path)
    found._db.executescript(_BOOKKEEPING + mirror.table.sql())
    found.next = dict(found._db.execute("SELECT partition, next FROM position"))
    return found


def stored(mirror: Any, values: Iterator[tuple[bytes, bytes]]) -> None:
    """Store records, as if they had been read from the topic."""
    ahead = dict.fromkeys(range(PARTITIONS), 0)
    for number, (key, value) in enumerate(values):
        partition = number % PARTITIONS
        offset, ahead[partition] = ahead[partition], ahead[partition] + 1
        mirror._store(mirror._db, Record(mirror.topic, partition, offset, number, key, value))
        if number % BATCH == 0:
            mirror._db.commit()
    mirror._db.executemany("REPLACE INTO position VALUES (?, ?)", ahead.items())
    mirror._db.commit()
    mirror.next = ahead


def made(count: int) -> Iterator[tuple[bytes, bytes]]:
    """Pairs of different trajectories; one in ten is irrelevant."""
    rng = random.Random(0)
    for number in range(count):
        name = f"trajectory-{number}"
        positive, *negatives = (f"doc-{rng.randrange(DOCUMENTS):07d}" for _ in range(6))
        queries = corpus.queries_of(rng, number)
        yield encode(
            LabelledPair(
                pair_id=pair_id("", name, 1, "reference"),
                trajectory_id=name,
                browse_seq=1,
                revision="",
                profile="reference",
                query=queries[0],
                earlier_queries=tuple(queries[1:]),
                positive=positive,
                negatives=tuple(dict.fromkeys(n for n in negatives if n != positive)),
                verdict="irrelevant" if number % 10 == 0 else "relevant",
                judge="local",
                judge_version="1",
                reasoning_tokens=rng.randint(5, 200),
                rejected=0,
                rank=1,
                outcome="correct",
                closed_by="end",
                gaps=0,
                agent=Agent(name=f"agent-{number % 7}", model="m"),
                tenant="",
            )
        )


def documents_of() -> Iterator[tuple[bytes, bytes]]:
    """Records of the documents."""
    for document in corpus.documents(DOCUMENTS):
        yield document.doc_id.encode(), document.to_json()


def split(pairs: Any, new: int) -> tuple[tuple[Range, ...], list[Range]]:
    """The ranges of the last ``new`` pairs, and those before."""
    each = new // PARTITIONS
    ranges = [
        [
            Range(topic=pairs.topic, partition=partition, start=start, end=end)
            for partition, start, end in spans
            if start < end
        ]
        for spans in (
            [(p, end - each, end) for p, end in pairs.next.items()],
            [(p, 0, end - each) for p, end in pairs.next.items()],
        )
    ]
    return tuple(ranges[0]), ranges[1]


def peak() -> float:
    """The largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
