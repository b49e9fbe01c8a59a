"""Weights of pairs: agents reason longer about documents that help them (LRAT, eq. 3).

    w = (1 − exp(−ln 2 · l / β)) / μ

l is the length of the reasoning in tokens, β the median of l and μ the mean of the unnormalised
weights, both per agent model, because agents differ in verbosity. A pair of median length has half
of the maximum weight, and weights average 1 within an agent model.

This applies to the variant ``reweight``; under ``naive`` and ``filter`` every weight is 1. An
outcome policy multiplies the weight by a factor.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Literal

from schemas.events import Outcome
from schemas.pairs import LabelledPair
from schemas.runs import AgentIntensity, Intensity
from schemas.settings import OutcomePolicy

Variant = Literal["naive", "filter", "reweight"]
"""LRAT's ablation. ``naive``: every browsed document is a positive of weight 1; ``filter``: only
relevant ones, weight 1; ``reweight``: relevant ones, weighted by the length of the reasoning."""

ENOUGH_PAIRS = 50
"""An agent model with fewer pairs uses β and μ over all agents."""


def measure(pairs: Iterable[LabelledPair]) -> Intensity:
    """β and μ over the relevant pairs that have a reasoning of at least one token.

    Args:
        pairs: of a run, in any order; irrelevant ones are skipped.
    """
    lengths: dict[str, list[int]] = defaultdict(list)
    for pair in pairs:
        if pair.verdict == "relevant" and pair.reasoning_tokens:
            lengths[pair.agent.model].append(pair.reasoning_tokens)
    everything = [length for some in lengths.values() for length in some]
    return Intensity(
        overall=_measured(everything) if everything else None,
        by_agent_model={
            model: _measured(some)
            for model, some in sorted(lengths.items())
            if len(some) >= ENOUGH_PAIRS
        },
    )


def weight(pair: LabelledPair, intensity: Intensity, variant: Variant = "reweight") -> float:
    """The weight of a pair; 1 if it has no reasoning (LRAT, eq. 3).

    Raises:
        ValueError: ``intensity`` was measured without any pair that has a reasoning.
    """
    if variant != "reweight" or not pair.reasoning_tokens:
        return 1.0
    scale = scale_of(pair, intensity)
    if scale is None:
        raise ValueError(f"no intensity was measured for pair {pair.pair_id}")
    return _unnormalised(pair.reasoning_tokens, scale.beta) / scale.mu


def scale_of(pair: LabelledPair, intensity: Intensity) -> AgentIntensity | None:
    """β and μ for a pair: of its agent model, or of all agents; ``None``: none were measured."""
    return intensity.by_agent_model.get(pair.agent.model, intensity.overall)


def outcome_factor(policy: OutcomePolicy, outcome: Outcome) -> float:
    """Factor of a pair's weight; 0 drops the pair.

    ============== ========= ========= =========
    policy         correct   incorrect unknown
    ============== ========= ========= =========
    all            1         1         1
    correct_only   1         0         0
    weight         1         0.5       1
    ============== ========= ========= =========

    Agents find useful documents on the way to a wrong answer too, so ``all`` is the default.

    Args:
        outcome: of the trajectory, from the latest report or else from its end event.
    """
    match policy:
        case "all":
            return 1.0
        case "correct_only":
            return 1.0 if outcome == "correct" else 0.0
        case "weight":
            return 0.5 if outcome == "incorrect" else 1.0


def _measured(lengths: Sequence[int]) -> AgentIntensity:
    beta = float(median(lengths))
    # fsum is exact, so the manifest does not depend on the order in which pairs were consumed.
    total = math.fsum(_unnormalised(length, beta) for length in lengths)
    return AgentIntensity(beta=beta, mu=total / len(lengths), pairs=len(lengths))


def _unnormalised(length: int, beta: float) -> float:
    return -math.expm1(-math.log(2.0) * length / beta)
