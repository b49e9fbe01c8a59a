"""A seed's turns through the whole system, and what the oracle makes of the same searches."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from benchmarks import oracle
from benchmarks.ablation.runs import passes
from benchmarks.ablation.turns import World
from benchmarks.in_memory import ExactIndex
from consumers.releases import listed
from consumers.training.history import RunHistory
from deploy.stack import LocalStack
from retrail_runtime import kafka
from schemas.events import Event, parse
from schemas.runs import RunManifest
from schemas.topics import Topics
from simulation import fleet
from simulation.corpus import Corpus, Need
from simulation.demo import measure
from simulation.demo.command import installation
from simulation.demo.flywheel import Flywheel, Plan
from simulation.demo.report import Report
from simulation.demo.report import Turn as Reported
from simulation.demo.view import View
from simulation.scripted import digest
from trainer.data.examples import TrainingExample
from trainer.fit import finetune
from trainer.model.encoder import Encoder
from trainer.model.presets import PRESETS
from trainer.registry.registry import Registry

Say = Callable[[str], None]
Values = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """What serves after a turn, 0 being the untrained retriever.

    Attributes:
        decision: of the gate; ``first`` for turn 0.
        system, oracle: nDCG@10 of each need never seen, of the live model and its oracle.
        searched: the system's mean as searches through Milvus gave it.
        pairs, steps: of the turn's training.
    """

    turn: int
    version: int
    decision: str
    pairs: int
    steps: int
    searched: float
    system: Values
    oracle: Values


@dataclass(frozen=True, slots=True)
class Run:
    """One seed.

    Attributes:
        full: nDCG@10 of each need never seen, of full supervision: the true labels of all needs
            that agents had, trained until a held-back part of them stops improving. These needs are
            the same for every seed, so a corpus' first run trains it and the others repeat its
            values; empty in runs that were made without.
    """

    corpus: str
    seed: int
    agents: int
    turns: tuple[Turn, ...]
    seconds: float
    full: Values = ()


def alike(run: Run) -> tuple[str, int, int]:
    """Corpus, agents of a turn and turns: runs that are equal in these differ by seed alone."""
    return run.corpus, run.agents, len(run.turns) - 1


def run(plan: Plan, say: Say, full: Values = ()) -> Run:
    """Run the demo's flywheel over a stack of its own, then train the oracle beside it.

    1. The flywheel turns: Kafka, judge, miner, trainer, gate, Milvus, all as in `retrail demo`.
    2. What it left is read before the stack goes: releases, manifests, events and models.
    3. For every training run the oracle is trained from the oracle of the run's parent, with the
       same settings, on as many examples: the searches of the trajectories that the parent had not
       learned from, and as many replayed ones of its own earlier examples.
    4. Both are measured on each need never seen, by exact search over the same documents, and so
       is full supervision of the untrained retriever, unless ``full`` has its values.

    Raises:
        RetrailError: the flywheel or its stack failed.
    """
    began = time.monotonic()
    with installation(plan.seed, say) as stack:
        report = Flywheel(plan, stack, View(Console())).run()
        found = _measured(plan, stack, report, say)
    if not full:
        say(f"seed {plan.seed}: full supervision learns")
        full = _values(_fully(plan), plan.corpus)
    seconds = round(time.monotonic() - began, 1)
    return Run(plan.corpus.name, plan.seed, plan.agents, found, seconds, full)


def _measured(plan: Plan, stack: LocalStack, report: Report, say: Say) -> tuple[Turn, ...]:
    """Steps 2 to 4."""
    registry = Registry.of(stack.settings)
    first, *made = listed(RunHistory(stack.settings).refresh())
    school = School(plan, _events(stack), registry.load(first.release.model, trains=True))
    untrained = _values(school.oracle, plan.corpus)
    system, oracle = untrained, untrained
    turns = [_turn(report.turns[0], "first", system, oracle)]
    for turn, one in zip(report.turns[1:], made, strict=True):
        stack.check()
        say(f"seed {plan.seed}, turn {turn.turn}: the oracle learns")
        assert one.manifest is not None, "only the first release has no run"
        shipped = one.decision == "ship"
        school.teach(turn.turn, one.manifest, shipped=shipped)
        if shipped:
            say(f"seed {plan.seed}, turn {turn.turn}: measuring both")
            system = _values(registry.load(one.release.model), plan.corpus)
            oracle = _values(school.oracle, plan.corpus)
        turns.append(_turn(turn, one.decision, system, oracle))
    return tuple(turns)


class School:
    """The oracle, run after run of the system.

    Attributes:
        oracle: beside the live model: it learns when the system ships, and from as much.
    """

    def __init__(self, plan: Plan, events: Mapping[str, Sequence[Event]], first: Encoder) -> None:
        self.oracle = first
        self._plan, self._events = plan, events
        self._text = {d.doc_id: d.embedded_text() for d in plan.corpus.documents}
        self._pending: dict[str, Need] = {}
        self._learned: list[TrainingExample] = []

    def teach(self, turn: int, manifest: RunManifest, *, shipped: bool) -> None:
        """Let the oracle learn from the trajectories of ``turn``, if the system did."""
        plan = self._plan
        todo = fleet.assignments(plan.needs(turn), plan.agents, seed=plan.seed, turn=turn)
        self._pending |= {task.mind.trajectory_id: task.need for task in todo}
        if not shipped:
            return
        new = oracle.examples(
            {name: self._events[name] for name in self._pending},
            self._pending,
            self._text.__getitem__,
            count=manifest.pairs + manifest.earlier,
            seed=plan.seed,
        )
        again = sorted(self._learned, key=lambda e: digest(plan.seed, turn, "again", e.pair_id))
        examples = [*new, *again[: manifest.replayed]]
        self.oracle = finetune.finetune(self.oracle, examples, manifest.config).encoder
        self._learned += new
        self._pending = {}


def _fully(plan: Plan) -> Encoder:
    """The untrained retriever after full supervision."""
    world = World(plan.corpus, lambda text: None)
    examples = world.labelled(need for n in range(plan.turns) for need in plan.needs(n + 1))
    settings = world.settings.model_copy(update={"train_seed": plan.seed})
    config = finetune.config_of(settings, PRESETS["minilm"])
    epochs = passes(world.parent, examples, config)
    config = config.model_copy(update={"epochs": epochs})
    return finetune.finetune(world.parent.encoder, examples, config).encoder


def _events(stack: LocalStack) -> dict[str, list[Event]]:
    """What the agents published, by trajectory, in order."""
    found: dict[str, list[Event]] = {}
    topic = Topics.of(stack.settings).trajectory_events
    for record in kafka.read_to_end(stack.settings, topic):
        event = parse(record.value or b"").event
        found.setdefault(event.trajectory_id, []).append(event)
    return found


def _values(encoder: Encoder, corpus: Corpus) -> Values:
    index = ExactIndex(encoder, corpus.documents)
    qualities = measure.by_need(corpus.unseen, index.search_many)
    return tuple(round(each.ndcg_at_10, 6) for each in qualities)


def _turn(reported: Reported, decision: str, system: Values, oracle: Values) -> Turn:
    return Turn(
        turn=reported.turn,
        version=reported.model_version,
        decision=decision,
        pairs=reported.relevant,
        steps=reported.training_steps,
        searched=reported.ndcg_at_10,
        system=system,
        oracle=oracle,
    )
