"""An installation for training tests: a tiny model, documents and pairs on real topics."""

import random
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY

from consumers import releases
from consumers.first_release import register_first
from consumers.training.worker import Trainer
from retrail_runtime import kafka
from schemas import documents, runs
from schemas.documents import Document
from schemas.errors import InvalidRecordError
from schemas.events import Agent
from schemas.pairs import LabelledPair, decode, encode, pair_id
from schemas.runs import RunManifest
from schemas.settings import Settings
from schemas.topics import Topics
from tests.tiny_model import write_tiny_model
from trainer.data.releases import Releases
from trainer.registry.registry import Registry

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "islet", "jetty")
DOCUMENTS = 24
TIMEOUT = 60.0


def small(settings: Settings, folder: Path, **changes: Any) -> Settings:
    """Settings for one epoch of a tiny model, with a permissive gate of the trainer alone."""
    defaults: dict[str, Any] = {
        "model": str(write_tiny_model(folder / "model")),
        "index_max_tokens": 32,
        "train_epochs": 1,
        "gate": "trainer",
        "gate_margin": 1.0,
        "gate_min_queries": 1,
    }
    return settings.model_copy(update=defaults | changes)


@dataclass
class World:
    """Writes the records of agents and miners, and reads those of trainers."""

    settings: Settings
    published: int = 0
    draw: random.Random = field(default_factory=lambda: random.Random(7))

    def __post_init__(self) -> None:
        self.topics = Topics.of(self.settings)
        self.producer = kafka.producer(self.settings)

    def open(self) -> None:
        """Documents, and the first release."""
        kafka.send_all(
            self.producer,
            self.topics.documents,
            [
                documents.encode(Document(doc_id=doc_id, text=self.text(doc_id)))
                for doc_id in map(str, range(DOCUMENTS))
            ],
        )
        register_first(self.settings)

    def text(self, doc_id: str) -> str:
        draw = random.Random(doc_id)
        return " ".join(draw.choices(WORDS, k=6))

    def pairs(self, count: int, **changes: Any) -> list[LabelledPair]:
        """Publish new pairs, each of a trajectory of its own."""
        made = [self.pair(**changes) for _ in range(count)]
        self.publish(made)
        return made

    def pair(self, **changes: Any) -> LabelledPair:
        number, self.published = self.published, self.published + 1
        positive, *negatives = self.draw.sample([str(n) for n in range(DOCUMENTS)], 5)
        trajectory = f"trajectory-{number}"
        values: dict[str, Any] = {
            "pair_id": pair_id("", trajectory, 1, "reference"),
            "trajectory_id": trajectory,
            "browse_seq": 1,
            "revision": "",
            "profile": "reference",
            "query": f"{self.text(positive)} {number}",
            "positive": positive,
            "negatives": tuple(negatives),
            "verdict": "relevant",
            "judge": "local",
            "judge_version": "1",
            "reasoning_tokens": self.draw.randint(5, 200),
            "rejected": 1,
            "rank": 1,
            "outcome": "correct",
            "closed_by": "end",
            "gaps": 0,
            "agent": Agent(name="a", model="m"),
            "tenant": "",
        }
        return LabelledPair(**(values | changes))

    def publish(self, pairs: Iterable[LabelledPair]) -> None:
        kafka.send_all(
            self.producer,
            self.topics.labelled_pairs,
            [encode(pair) for pair in pairs],
        )

    def manifests(self) -> list[RunManifest]:
        return [
            runs.decode(record.value)
            for record in kafka.read_to_end(self.settings, self.topics.training_runs)
        ]

    def trained(self, manifest: RunManifest) -> tuple[list[str], list[str]]:
        """Ids of a run's training file: of new pairs and of replayed ones, each sorted."""
        frozen = Registry.of(self.settings).load_training_file(manifest.training_file)
        new = set()
        for span in manifest.ranges:
            start, end = {span.partition: span.start}, {span.partition: span.end}
            for record in kafka.read_to_end(self.settings, span.topic, start, end):
                with suppress(InvalidRecordError):
                    new.add(decode(record.value).pair_id)
        ids = sorted(example.pair_id for example in frozen)
        found = [i for i in ids if i in new], [i for i in ids if i not in new]
        assert (manifest.pairs, manifest.replayed) == (len(found[0]), len(found[1]))
        return found

    def releases(self) -> Releases:
        return releases.read(self.settings)

    def live(self) -> int | None:
        found = self.releases().live
        return found.version if found else None


def metric(name: str, **labels: str) -> float:
    """Current value of a metric; 0 if it was never set."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


def turn_until(condition: Callable[[], object], *trainers: Trainer) -> None:
    """Run trainers, in turn, until the condition is true."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        for one in trainers:
            one.turn()
