"""Training runs: one manifest a run (topic ``training-runs``, one partition, key ``run_id``, kept).

A manifest freezes everything that a model is a function of, before training starts. It names no
pair: the ranges and rules select them, and the digest of the training file confirms it.
"""

import hashlib
from typing import Annotated

from pydantic import Field

from schemas import base
from schemas.base import Contract, Count, Moment, Offset, Version, canonical
from schemas.settings import OutcomePolicy, Share

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256")]
RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Range(Contract):
    """Offsets ``start`` (inclusive) to ``end`` (exclusive) of one partition of a topic."""

    topic: str
    partition: Count
    start: Offset
    end: Offset


class AgentIntensity(Contract):
    """β (median reasoning tokens) and μ (mean of the unnormalised weights) of one agent model."""

    beta: Annotated[float, Field(gt=0)]
    mu: Annotated[float, Field(gt=0)]
    pairs: Count


class Intensity(Contract):
    """What turns reasoning tokens into weights (LRAT, eq. 3); agents differ in verbosity.

    Attributes:
        overall: absent if no pair has reasoning tokens.
    """

    overall: AgentIntensity | None = None
    by_agent_model: dict[str, AgentIntensity]


class TrainingConfig(Contract):
    """Hyper-parameters of a run.

    Attributes:
        batch: pairs that stand against each other.
        negatives: own negatives of a pair, at most.
        tokens_at_once: padded tokens that are encoded together.
        tokens_kept: padded tokens of a batch (a process's share) whose activations are kept.
        lora_rank: of adapters, which are merged into the child; 0: all weights are trained.
    """

    epochs: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]
    negatives: Count
    learning_rate: Annotated[float, Field(gt=0)]
    temperature: Annotated[float, Field(gt=0)]
    max_tokens: Annotated[int, Field(ge=1)]
    seed: int
    tokens_at_once: Annotated[int, Field(ge=1)] = 4096
    tokens_kept: Count = 12_288
    lora_rank: Count = 0


class Caps(Contract):
    """The largest share of a run's pairs that one agent, tenant, … may have; 1 is no cap.

    Attributes:
        document: of the pairs, those with one document as their positive.
        run: pairs that a share is taken of at least, so that a small run loses little.
    """

    agent: Share
    tenant: Share
    trajectory: Share
    query: Share
    document: Share
    run: Annotated[int, Field(ge=1)]


class EarlierRule(Contract):
    """When a pair's earlier queries train, too.

    Attributes:
        similarity: least cosine similarity to the pair's own query, as the parent encodes both.
        weight: factor of the pair's weight.
    """

    similarity: Share
    weight: Share


class SelectionRules(Contract):
    """What decides which pairs of the ranges train.

    Attributes:
        limit: most new pairs; more are sampled down to it.
        replay: earlier pairs for each new one, at most a quarter of the limit.
        outcome_policy: which trajectories' pairs train.
        earlier: absent: the pairs' earlier queries do not train.
    """

    caps: Caps
    limit: Annotated[int, Field(ge=1)]
    replay: Annotated[float, Field(ge=0)]
    outcome_policy: OutcomePolicy
    earlier: EarlierRule | None = None


class TrainingFile(Contract):
    """The frozen examples (ids, texts, weights) in the registry."""

    location: str
    digest: Digest
    examples: Count


class RunManifest(Contract):
    """One training run.

    Attributes:
        run_id: see :func:`run_id`.
        version: of the release that the run makes. If two manifests name one version, the first
            on the topic has it and the other one is void.
        parent: the release that was live; the child starts from its model.
        ranges: the new pairs; they start where the live lineage's ranges end.
        pairs: new pairs in the training file.
        replayed: pairs of earlier runs of the lineage in it, sampled against forgetting.
        earlier: examples in it of the new pairs' earlier queries, by ``rules.earlier``.
        left_out: pairs in the ranges that do not train, by reason.
        outcome_ranges: what of the topic ``outcomes`` was known when the pairs were selected.
        rules: how they were selected.
    """

    run_id: RunId
    version: Version
    retriever: str
    parent: Version
    created_at: Moment
    ranges: tuple[Range, ...]
    pairs: Count
    replayed: Count
    earlier: Count
    left_out: dict[str, Count]
    intensity: Intensity
    config: TrainingConfig
    training_file: TrainingFile
    outcome_ranges: tuple[Range, ...]
    rules: SelectionRules


def run_id(parent: int, ranges: tuple[Range, ...]) -> str:
    """First 32 hex digits of the SHA-256 of parent and ranges: a repeated run is the same run."""
    content = [parent, [[r.topic, r.partition, r.start, r.end] for r in ranges]]
    return hashlib.sha256(canonical(content)).hexdigest()[:32]


def decode(value: bytes | None) -> RunManifest:
    """The manifest of a record of ``training-runs``.

    Raises:
        InvalidRecordError: the value is no manifest.
    """
    return base.decode(RunManifest, value)


def encode(manifest: RunManifest) -> tuple[bytes, bytes]:
    """Key and value of a manifest's record."""
    return manifest.run_id.encode(), manifest.to_json()
