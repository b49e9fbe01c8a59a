"""A manifest and a release for tests that look at records and train nothing."""

from datetime import UTC, datetime
from typing import Any

from schemas.releases import CandidateDecision, Comparison, Metrics, Model, Release
from schemas.runs import Intensity, Range, RunManifest, TrainingFile
from schemas.settings import Settings
from trainer.data.selection import rules_of
from trainer.fit.finetune import config_of
from trainer.model.presets import PRESETS

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


COMPARISON = Comparison(
    queries=240,
    parent_metrics=Metrics(ndcg_at_10=0.43, recall_at_10=0.6, mrr=0.4),
    child_metrics=Metrics(ndcg_at_10=0.45, recall_at_10=0.63, mrr=0.44),
    difference=0.02,
    interval=(-0.01, 0.05),
)


def a_manifest(version: int, **changes: Any) -> RunManifest:
    """Of the run that made ``version`` from the one before; ``changes`` overrule its fields."""
    values: dict[str, Any] = {
        "run_id": run_of(version),
        "version": version,
        "retriever": "r",
        "parent": version - 1,
        "created_at": NOW,
        "ranges": (Range(topic="labelled-pairs", partition=1, start=7, end=12),),
        "pairs": 2,
        "replayed": 1,
        "earlier": 0,
        "left_out": {"held out": 4},
        "intensity": Intensity(overall=None, by_agent_model={}),
        "config": config_of(Settings(), PRESETS["minilm"]),
        "training_file": TrainingFile(location="t", digest="c" * 64, examples=3),
        "outcome_ranges": (),
        "rules": rules_of(Settings()),
    }
    return RunManifest(**(values | changes))


def a_release(version: int, parent: int | None, decision: str, **changes: Any) -> Release:
    """A release; ``changes`` overrule its fields."""
    values: dict[str, Any] = {
        "version": version,
        "retriever": "r",
        "parent": parent,
        "run_id": run_of(version) if parent else None,
        "model": Model(location=f"r/v{version}", digest="d" * 64),
        "created_at": NOW,
        "held_out": COMPARISON if parent else None,
        "margin": 0.02,
        "decision": decision,
        "reason": f"because of {version}",
    }
    return Release(**(values | changes))


def a_decision(version: int, decision: str, **changes: Any) -> CandidateDecision:
    """The index worker's decision on a candidate; ``changes`` overrule its fields."""
    values: dict[str, Any] = {
        "version": version,
        "decision": decision,
        "reason": f"because of {version}",
        "decided_at": NOW,
    }
    return CandidateDecision(**(values | changes))


def run_of(version: int) -> str:
    """The id of the run that made a version."""
    return f"{version:032x}"
