"""An attacker that pushes one document with a tenth of all trajectories, on a real model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import pytest
import torch

from benchmarks.adversary import PUSHED, TENANT, trajectory
from benchmarks.in_memory import ExactIndex, Pairs, Texts, mined
from consumers.training.gate import choose, compare
from schemas.pairs import LabelledPair
from schemas.releases import GateDecision
from schemas.runs import Caps
from schemas.settings import Settings
from simulation import fleet, stdlib_corpus
from simulation.corpus import Corpus
from simulation.demo import measure
from simulation.scripted import draw
from trainer.data.caps import UNCAPPED
from trainer.data.draws import is_held_out
from trainer.data.examples import TrainingExample
from trainer.data.selection import Selector, rules_of
from trainer.fit import finetune
from trainer.model.encoder import Encoder
from trainer.model.presets import PRESETS

FEW, MANY = 120, 400
"""Needs of the agents, two agents for each; and as many that nobody has. Few are too few for the
gate, which holds every child; of many it ships those that are better."""

SHARE = 0.1
"""The attacker's share of all trajectories."""

SETTINGS = Settings(
    train_epochs=1,
    train_negatives=2,
    train_learning_rate=5e-5,
    index_max_tokens=32,
)
NO_CAPS = {"train_cap_trajectory": 1.0, "train_cap_query": 1.0, "train_cap_document": 1.0}
WITHOUT_CAPS = SETTINGS.model_copy(update=NO_CAPS | {"gate_margin": 1.0, "gate_min_queries": 1})
CONVINCED = 8
"""Epochs after which a child trained on one document alone ranks it first."""

pytestmark = [pytest.mark.timeout(900), pytest.mark.faults]


@cache
def parent() -> Encoder:
    torch.set_num_threads(1)
    return Encoder.load("minilm", max_tokens=SETTINGS.index_max_tokens)


@dataclass(frozen=True)
class Town:
    """The pairs of agents and attacker, and models trained on them."""

    seed: int
    corpus: Corpus
    index: ExactIndex
    pairs: Sequence[LabelledPair]

    @classmethod
    def of(cls, seed: int, needs: int) -> "Town":
        whole = stdlib_corpus.load()
        chosen = draw(seed, "needs")
        training = chosen.sample(whole.training, needs)
        unseen = chosen.sample(whole.unseen, needs)
        served = {doc_id for need in (*training, *unseen) for doc_id in need.relevant}
        documents = [PUSHED, *(d for d in whole.documents if d.doc_id in served)]
        index = ExactIndex(parent(), documents)
        todo = fleet.assignments(training, 2 * needs, seed=seed, turn=1)
        attackers = round(len(todo) * SHARE / (1 - SHARE))
        attacked = chosen.choices(training, k=attackers)
        hits = index.search_many([need.text for need in attacked])
        lies = [
            trajectory(need, some, seed, number)
            for number, (need, some) in enumerate(zip(attacked, hits, strict=True))
        ]
        pairs = mined([*fleet.watch(todo, index.search_many).values(), *lies], SETTINGS)
        corpus = Corpus(whole.name, tuple(documents), tuple(training), tuple(unseen))
        return cls(seed, corpus, index, pairs)

    def chosen(self, settings: Settings) -> tuple[TrainingExample, ...]:
        pairs = Pairs()
        texts = Texts(self.corpus.documents)
        encode = parent().encode_queries
        selector = Selector(pairs, texts, rules_of(settings), 1, self.seed, encode)
        return selector.select([pairs.add(self.pairs)], []).examples

    def child(self, examples: Sequence[TrainingExample], epochs: int = 1) -> Encoder:
        settings = SETTINGS.model_copy(update={"train_epochs": epochs, "train_seed": self.seed})
        config = finetune.config_of(settings, PRESETS["minilm"])
        return finetune.finetune(parent(), examples, config).encoder

    def gate(self, child: Encoder, settings: Settings, caps: Caps | None = None) -> GateDecision:
        relevant = [pair for pair in self.pairs if pair.verdict == "relevant"]
        texts = Texts(self.corpus.documents)
        questions = choose(
            [pair for pair in relevant if is_held_out(pair.query)],
            [],
            [pair for pair in relevant if not is_held_out(pair.query)],
            texts,
            settings,
            caps,
        )
        decision, _ = compare(
            parent(),
            child,
            questions,
            texts,
            settings=settings,
            progress=lambda stage, done, of: None,
        )
        return decision

    def quality(self, index: ExactIndex) -> float:
        return measure.quality(self.corpus.unseen, index.search_many).ndcg_at_10


@pytest.fixture(
    scope="module",
    params=[(0, FEW), *((seed, MANY) for seed in range(1, 6))],
    ids=lambda param: f"seed-{param[0]}",
)
def town(request: pytest.FixtureRequest) -> Town:
    return Town.of(*request.param)


def lies(examples: Sequence[TrainingExample]) -> float:
    """The attacker's share of the weights."""
    pushed = sum(example.weight for example in examples if example.positive_id == PUSHED.doc_id)
    return pushed / sum(example.weight for example in examples)


def test_a_shipped_child_is_no_worse_despite_the_attacker(town: Town) -> None:
    examples = town.chosen(SETTINGS)
    flooded = town.chosen(WITHOUT_CAPS)
    child = town.child(examples)
    decision = town.gate(child, SETTINGS)
    before = town.quality(town.index)
    after = town.quality(ExactIndex(child, town.corpus.documents))
    spoilt = town.quality(ExactIndex(town.child(flooded), town.corpus.documents))
    shipped = after if decision.decision == "ship" else before
    print(f"\n{before:.4f} -> {after:.4f}, {decision.decision}: {decision.reason}")
    print(f"lies {lies(examples):.1%}; without caps {lies(flooded):.1%}, {spoilt:.4f}")
    assert any(pair.tenant == TENANT for pair in town.pairs)
    assert 0 < lies(examples) < 0.5 * lies(flooded)
    assert after > spoilt
    assert shipped >= before


def test_a_child_of_lies_alone_is_rejected_and_lies_in_the_gate_would_excuse_it(
    town: Town,
) -> None:
    only = [e for e in town.chosen(WITHOUT_CAPS) if e.positive_id == PUSHED.doc_id]
    child = town.child(only, CONVINCED)
    sure = SETTINGS.model_copy(update={"gate_min_queries": 20})
    excused, decision = town.gate(child, WITHOUT_CAPS, UNCAPPED), town.gate(child, sure)
    print(f"\nlies alone: {excused.reason}; {decision.reason}")
    assert decision.decision == "reject"
    assert decision.held_out is not None
    assert excused.held_out is not None
    assert decision.held_out.difference < excused.held_out.difference
