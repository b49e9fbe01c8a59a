"""Labelled pairs and examples for tests."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.events import Agent
from schemas.pairs import LabelledPair
from schemas.runs import TrainingConfig
from trainer.data.examples import TrainingExample


def labelled(number: int = 0, *, model: str = "m", **changes: Any) -> LabelledPair:
    """A relevant pair; ``changes`` override its fields."""
    fields: dict[str, Any] = {
        "pair_id": hashlib.sha256(str(number).encode()).hexdigest()[:32],
        "trajectory_id": f"t{number}",
        "browse_seq": 1,
        "revision": "",
        "profile": "reference",
        "query": f"query {number}",
        "positive": f"d{number}",
        "negatives": (),
        "verdict": "relevant",
        "judge": "local",
        "judge_version": "1",
        "rejected": 0,
        "rank": 1,
        "outcome": "correct",
        "closed_by": "end",
        "gaps": 0,
        "agent": Agent(name="a", model=model),
        "tenant": "t",
    }
    return LabelledPair(**(fields | changes))


def example(number: int = 0, **changes: Any) -> TrainingExample:
    """An example with its own query and without negatives; ``changes`` override its fields."""
    fields: dict[str, Any] = {
        "pair_id": f"{number:032x}",
        "query": f"query {number}",
        "positive_id": f"d{number}",
        "positive_text": f"text of d{number}",
        "negatives": (),
        "weight": 1.0,
    }
    return TrainingExample(**(fields | changes))


def unlike(queries: Sequence[str]) -> NDArray[np.float32]:
    """Vectors of queries that have nothing in common."""
    return np.eye(len(queries), dtype=np.float32)


NAMES = ["abacus", "boat", "candle", "dragon", "engine", "ferry", "garden", "harbour"]


def misleading_examples(weight: Callable[[int], float] = lambda _: 1.0) -> list[TrainingExample]:
    """Eight examples whose positive shares no word with the query: an untrained encoder fails."""
    return [
        example(
            i,
            query=f"{name} {i}",
            positive_text=f"on the {NAMES[i - 3]}s of port {9 - i}",
            negatives=((f"n{i}", f"no {NAMES[i - 1]} at all, {'really ' * i}"),),
            weight=weight(i),
        )
        for i, name in enumerate(NAMES)
    ]


def training_config(**changes: Any) -> TrainingConfig:
    """A configuration for a tiny model; ``changes`` override its fields."""
    fields: dict[str, Any] = {
        "epochs": 5,
        "batch": 4,
        "negatives": 1,
        "learning_rate": 5e-3,
        "temperature": 0.05,
        "max_tokens": 32,
        "seed": 1,
    }
    return TrainingConfig(**(fields | changes))
