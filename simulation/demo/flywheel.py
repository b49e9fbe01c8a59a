"""The loop: agents search, their trajectories are mined, a child is trained and indexed."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from consumers.training.worker import train_now
from deploy.stack import LocalStack
from schemas.errors import RetrailError
from schemas.pairs import LabelledPair
from schemas.releases import GateDecision, Release
from schemas.settings import Settings
from serving.retriever import Hit, Retriever
from simulation import fleet
from simulation.corpus import Corpus, Need
from simulation.demo import measure, stages
from simulation.demo.report import CorpusFigures, Gate, Report, Seconds, Turn
from simulation.demo.view import Stage, View
from simulation.scripted import HITS, digest
from trainer.fit.checkpoint import Step


@dataclass(frozen=True, slots=True)
class Plan:
    """Parameters of a run.

    Attributes:
        turns: number of trainings.
        agents: in each turn; each publishes one trajectory.
        seed: of all random draws.
    """

    corpus: Corpus
    turns: int
    agents: int
    seed: int

    @classmethod
    def of(cls, corpus: Corpus, turns: int, seed: int, agents: int | None) -> "Plan":
        """A plan; by default two agents have each need of a turn.

        Raises:
            RetrailError: there are fewer needs than turns.
        """
        if len(corpus.training) < turns:
            raise RetrailError(
                f"{corpus.name} has {len(corpus.training)} needs for agents, and every turn uses "
                f"others, so at most so many turns (--turns) are possible, not {turns}."
            )
        return cls(corpus, turns, agents or 2 * (len(corpus.training) // turns), seed)

    def needs(self, turn: int) -> Sequence[Need]:
        """The needs of a turn (1 to ``turns``); turns share no need."""
        shuffled = sorted(
            self.corpus.training, key=lambda need: digest(self.seed, "needs", need.need_id)
        )
        return shuffled[turn - 1 :: self.turns]


class Flywheel:
    """Runs a plan on a running stack."""

    def __init__(self, plan: Plan, stack: LocalStack, view: View) -> None:
        self._plan, self._stack, self._view = plan, stack, view
        self._settings = stack.settings
        self._events = 0

    def run(self) -> Report:
        """Run turn 0 and all turns.

        Raises:
            RetrailError: a stage had nothing to do, or a part failed.
        """
        began = time.monotonic()
        corpus = self._plan.corpus
        one_core()
        with Retriever(self._settings) as retriever:
            turns = [self._prepare(retriever)]
            for number in range(1, self._plan.turns + 1):
                turns.append(self._turn(number, turns[-1], retriever))
        if not any(turn.gate and turn.gate.decision == "ship" for turn in turns):
            raise RetrailError(
                "The gate shipped no model, so the index was never refreshed. Use more agents "
                "(--agents), other turns (--turns) or another seed (--seed)."
            )
        return Report(
            corpus=CorpusFigures(
                corpus.name, len(corpus.documents), corpus.needs, len(corpus.unseen)
            ),
            kafka=self._stack.kafka,
            seed=self._plan.seed,
            agents=self._plan.agents,
            turns=tuple(turns),
            seconds=time.monotonic() - began,
        )

    def _prepare(self, retriever: Retriever) -> Turn:
        """Turn 0: load and index the documents, measure the untrained retriever."""
        view, documents = self._view, self._plan.corpus.documents
        view.begin("Turn 0: the untrained retriever")
        with view.stage("documents", "sent to the topic from which every index is built") as stage:
            stages.load_documents(self._settings, documents, progress=partial(view.progress, stage))
        with view.stage("index", "encode all documents into Milvus, set the alias") as stage:
            stages.wait_until_indexed(
                self._settings,
                len(documents),
                on_wait=lambda done: self._wait(stage, done, len(documents)),
            )
        figures, measuring = self._measure(retriever)
        turn = Turn(
            turn=0,
            model_version=retriever.version(),
            **figures,
            seconds=Seconds(refresh=stage.seconds, measuring=measuring),
        )
        view.turn(turn)
        return turn

    def _turn(self, number: int, before: Turn, retriever: Retriever) -> Turn:
        """Agents → pairs → training → gate → index → measurements."""
        view, plan = self._view, self._plan
        view.begin(f"Turn {number} of {plan.turns}: learn from agents")
        todo = fleet.assignments(plan.needs(number), plan.agents, seed=plan.seed, turn=number)
        with view.stage("agents", "search, browse, reason, answer; no LLM") as agents:
            work = fleet.work(
                todo,
                retriever,
                self._settings,
                on_progress=lambda done, of: self._wait(agents, done, of),
            )
            self._events += work.events
            agents.note = f"{work.events:,} events, {work.correct / len(todo):.0%} correct"
        with view.stage("mining", "judge every browse, mine pairs from trajectories") as mining:
            pairs = self._mine(todo, mining)
            relevant = sum(pair.verdict == "relevant" for pair in pairs)
            mining.note = f"{len(pairs):,} pairs, {relevant:,} of them relevant"
        losses: list[float] = []
        with view.stage("training", "pairs weighted by reasoning length") as training:
            release = self._train(training, losses, first=number == 1)
        with view.stage("refresh", "build a new index, compare, swap the alias") as refresh:
            version, decision = self._refresh(release, before, retriever, refresh)
        figures, measuring = self._measure(retriever)
        turn = Turn(
            turn=number,
            model_version=version,
            **figures,
            trajectories=len(todo),
            pairs=len(pairs),
            relevant=relevant,
            pairs_digest=stages.digest(pairs),
            training_steps=len(losses),
            losses=tuple(round(loss, 4) for loss in losses),
            gate=gate_of(decision),
            seconds=Seconds(
                agents=agents.seconds,
                mining=mining.seconds,
                training=training.seconds,
                refresh=refresh.seconds,
                measuring=measuring,
            ),
        )
        view.turn(turn)
        return turn

    def _mine(self, todo: Sequence[fleet.Assignment], stage: Stage) -> list[LabelledPair]:
        stages.wait_until_mined(
            self._settings,
            self._events,
            on_wait=lambda done, of: self._wait(stage, done, of),
        )
        pairs = stages.pairs_of(self._settings, {each.mind.trajectory_id for each in todo})
        if not any(pair.verdict == "relevant" for pair in pairs):
            raise RetrailError(
                f"{len(todo):,} trajectories gave no relevant pair to train on. Use more "
                "agents (--agents)."
            )
        return pairs

    def _train(self, stage: Stage, losses: list[float], *, first: bool) -> Release:
        def on_step(step: Step) -> None:
            losses.append(step.loss)
            last = step.step == step.steps
            note = "comparing with the parent" if last else f"loss {step.loss:.3f}"
            self._view.progress(stage, step.step, step.steps, note)

        every_core()
        try:
            release = train_now(
                for_first_turn(self._settings) if first else self._settings, on_step=on_step
            )
        finally:
            one_core()
        if isinstance(release, str):
            raise RetrailError(f"This turn made no release: {release}. Use more agents (--agents).")
        stage.note = f"{len(losses)} steps, gate: {release.reason}"
        return release

    def _refresh(
        self, release: Release, before: Turn, retriever: Retriever, stage: Stage
    ) -> tuple[int, GateDecision]:
        """The version that serves, and the gate's last decision on the release."""
        kept = f"version {before.model_version} stays live"
        if release.decision != "ship":
            stage.note = f"not needed, {kept}"
            return before.model_version, release
        decision = stages.wait_until_decided(
            self._settings, release.version, on_wait=lambda: self._wait(stage, 0, 0)
        )
        if decision.decision != "ship":
            stage.note = f"{decision.decision} ({decision.reason}), {kept}"
            return before.model_version, decision
        stages.wait_until_live(retriever, release.version, on_wait=lambda: self._wait(stage, 0, 0))
        stage.note = f"version {release.version} serves"
        return release.version, decision

    def _measure(self, retriever: Retriever) -> tuple[dict[str, Any], float]:
        """Figures of the live version on the unseen needs, by their names in a ``Turn``.

        Returns:
            The figures, and the seconds that measuring took.
        """
        needs = self._plan.corpus.unseen

        def search(queries: Sequence[str]) -> list[list[Hit]]:
            return [found.hits for found in retriever.search_many(queries, HITS)]

        with self._view.stage("measuring", f"{len(needs):,} unseen needs") as stage:
            quality = measure.quality(
                needs, search, progress=lambda done, of: self._wait(stage, done, 2 * of)
            )
            behaviour = measure.behaviour(
                needs,
                search,
                seed=self._plan.seed,
                progress=lambda done, of: self._wait(stage, of + done, 2 * of),
            )
        figures = {
            "ndcg_at_10": quality.ndcg_at_10,
            "recall_at_10": quality.recall_at_10,
            "success_rate": behaviour.success_rate,
            "mean_steps": behaviour.mean_steps,
        }
        return {name: round(value, 6) for name, value in figures.items()}, stage.seconds

    def _wait(self, stage: Stage, done: int, of: int) -> None:
        """Check the stack and show the progress of a stage."""
        self._stack.check()
        self._view.progress(stage, done, of)


def for_first_turn(settings: Settings) -> Settings:
    """Settings of the first turn: more epochs, because it has no earlier pairs to replay.

    So all turns have about the same number of steps.
    """
    epochs = round((settings.train_epochs or 1) * (1.0 + settings.train_replay))
    return settings.model_copy(update={"train_epochs": epochs})


def gate_of(decision: GateDecision) -> Gate:
    """A decision of the gate, for the report."""
    found = decision.held_out
    return Gate(
        decision=decision.decision,
        reason=decision.reason,
        queries=found.queries if found else 0,
        parent=found.parent_metrics.ndcg_at_10 if found else None,
        child=found.child_metrics.ndcg_at_10 if found else None,
        interval=found.interval if found else None,
        margin=decision.margin,
    )


def one_core() -> None:
    """Encode with one thread: for a dozen tokens, several threads only wait for each other.

    Applies to threads that have not used torch yet, and to the calling one.
    """
    torch.set_num_threads(1)


def every_core() -> None:
    """Let torch use every core of this process."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
