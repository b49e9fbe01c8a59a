"""Fine-tuning: a parent encoder, frozen examples and a configuration give a child encoder.

On one machine, with one version of torch and one number of threads, equal inputs give bit-identical
weights: the only randomness is the seeded sampling of :mod:`trainer.fit.batching`.

There is no dropout. At 256 tokens it makes attention three to four times as slow, because it rules
out the fused kernel, and it does not help over the few steps of a run from a trained parent.

With LoRA (Hu et al. 2022) the matrices of a large encoder are frozen and small adapters are
trained, so optimiser state and gradients cover about a hundredth of the weights. After training the
adapters are merged, so the child is a plain model.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
import torch

from schemas.errors import ConfigurationError, RetrailError
from schemas.runs import TrainingConfig
from schemas.settings import Settings
from trainer import metrics
from trainer.data.examples import TrainingExample
from trainer.fit import batching, gradients
from trainer.fit.batching import Batch
from trainer.fit.checkpoint import Checkpoint, Step
from trainer.fit.processes import SINGLE_PROCESS, Processes
from trainer.model.encoder import Encoder
from trainer.model.loading import transformers_of
from trainer.model.presets import Preset

log = structlog.get_logger(__name__)

WARM_UP = 0.1
"""Fraction of the steps with a rising learning rate; afterwards it falls linearly."""

WEIGHT_DECAY = 0.01
"""Of matrices, not of biases and norms."""

MAX_GRADIENT_NORM = 1.0

MICRO_BATCHES_KEPT = 3
"""Micro-batches per batch whose activations are kept; the other texts are encoded twice."""

LORA_SCALE = 2
"""LoRA's alpha divided by its rank."""


class TrainingError(RetrailError):
    """The training failed.

    Either no batch has two queries or a negative, so there is no contrast to learn from; or the
    loss or its gradient is not finite, and the child is discarded.
    """


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """The result of a training: the child and its optimiser steps."""

    encoder: Encoder
    steps: tuple[Step, ...]


def config_of(settings: Settings, preset: Preset) -> TrainingConfig:
    """The hyper-parameters in the settings; the preset's where a setting is not set."""

    def chosen(name: str) -> Any:
        wanted = getattr(settings, f"train_{name}")
        return getattr(preset, name) if wanted is None else wanted

    return TrainingConfig(
        epochs=chosen("epochs"),
        batch=preset.batch if settings.train_batch_size is None else settings.train_batch_size,
        negatives=chosen("negatives"),
        learning_rate=chosen("learning_rate"),
        temperature=chosen("temperature"),
        max_tokens=settings.index_max_tokens,
        seed=settings.train_seed,
        tokens_at_once=settings.train_micro_batch_tokens,
        tokens_kept=MICRO_BATCHES_KEPT * settings.train_micro_batch_tokens,
        lora_rank=settings.train_lora_rank,
    )


def finetune(
    encoder: Encoder,
    examples: Sequence[TrainingExample],
    config: TrainingConfig,
    *,
    adjust: Callable[[Batch], Batch] | None = None,
    on_step: Callable[[Step], None] | None = None,
    processes: Processes = SINGLE_PROCESS,
    checkpoint: Checkpoint | None = None,
) -> TrainingReport:
    """Train a child of ``encoder``, which is not modified and can encode meanwhile.

    Args:
        encoder: the parent.
        examples: in any order.
        config: hyper-parameters.
        adjust: changes each batch before the first step, for instance masks more negatives.
        on_step: called after every step; its exceptions end the training.
        processes: the process group; all processes pass equal arguments and get the child.
        checkpoint: of this training, for a single process; it goes on from there.

    Raises:
        TrainingError: the examples give no step, or the loss or its gradient is not finite.
    """
    # The import takes seconds, but the encoder has imported transformers by now.
    from trainer.model.cpu import training_attention

    batches = plan(examples, config)
    if adjust is not None:
        batches = [adjust(batch) for batch in batches]
    child = encoder.copy()
    with training_attention(child.model):
        child.model.requires_grad_(True)
        if config.lora_rank:
            add_adapters(child.model, config.lora_rank, config.seed)
        curve = tuple(_train(child, batches, config, on_step, processes, checkpoint))
        if config.lora_rank:
            merge_adapters(child.model)
        child.model.requires_grad_(False)
    return TrainingReport(child, curve)


def _train(
    child: Encoder,
    batches: Sequence[Batch],
    config: TrainingConfig,
    on_step: Callable[[Step], None] | None,
    processes: Processes,
    checkpoint: Checkpoint | None,
) -> list[Step]:
    optimizer = _optimizer(child.model, config.learning_rate)
    done = checkpoint.resume(child.model, optimizer) if checkpoint is not None else []
    started, trained = time.perf_counter(), 0
    for number, batch in enumerate(batches[len(done) :], start=1 + len(done)):
        began = time.perf_counter()
        learning_rate = config.learning_rate * learning_rate_factor(number, len(batches))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        loss = gradients.backward(child, batch, config, processes)
        _check(loss, number, len(batches))
        norm = torch.nn.utils.clip_grad_norm_(child.model.parameters(), MAX_GRADIENT_NORM)
        _check(float(norm), number, len(batches))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        trained += len(batch.queries)
        now = time.perf_counter()
        rate = trained / (now - started)
        step = Step(
            step=number,
            steps=len(batches),
            loss=loss,
            learning_rate=learning_rate,
            pairs=len(batch.queries),
            pairs_per_second=rate,
            eta_seconds=sum(len(b.queries) for b in batches[number:]) / rate,
        )
        _count(step, now - began)
        done.append(step)
        if checkpoint is not None:
            checkpoint.save(child.model, optimizer, done)
        if on_step is not None:
            on_step(step)
    return done


def plan(examples: Sequence[TrainingExample], config: TrainingConfig) -> list[Batch]:
    """The batches of all steps, over all epochs.

    Raises:
        TrainingError: there is no batch.
    """
    steps = [
        batch
        for number in range(config.epochs)
        for batch in batching.epoch(
            examples,
            size=config.batch,
            negatives=config.negatives,
            seed=config.seed,
            number=number,
        )
    ]
    if not steps:
        raise TrainingError(
            f"The {len(examples)} pairs of this run give no training step: a step needs two "
            "queries, or one with a negative. Wait until there are more pairs."
        )
    return steps


def learning_rate_factor(step: int, steps: int) -> float:
    """Learning rate factor of a step from 1 to ``steps``: linear warm-up and decay, never 0."""
    warm_up = int(WARM_UP * steps)
    if step <= warm_up:
        return step / (warm_up + 1)
    return (steps + 1 - step) / (steps - warm_up)


def _optimizer(model: Any, learning_rate: float) -> torch.optim.AdamW:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=learning_rate,
        fused=True,
    )


def _check(value: float, step: int, steps: int) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"Training diverged at step {step} of {steps} (loss or gradient {value}). The child is "
            "discarded. Lower RETRAIL_TRAIN_LEARNING_RATE or raise RETRAIL_TRAIN_TEMPERATURE."
        )


def _count(step: Step, seconds: float) -> None:
    metrics.TRAINING_STEPS.inc()
    metrics.TRAINING_PAIRS.inc(step.pairs)
    metrics.TRAINING_BATCH.observe(step.pairs)
    metrics.TRAINING_LOSS.set(step.loss)
    metrics.TRAINING_STEP_SECONDS.observe(seconds)


def add_adapters(model: Any, rank: int, seed: int) -> None:
    """Add LoRA adapters to all linear layers of a model's transformers, and freeze the layers.

    Args:
        model: a ``SentenceTransformer``. Its small Dense modules train without adapters.
        rank: of the adapters.
        seed: of their initial weights. Until the first step the model's vectors do not change.

    Raises:
        ConfigurationError: peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "RETRAIL_TRAIN_LORA_RANK needs peft. Install it with "
            "`pip install 'retrail-server[lora]'`, or set the rank to 0 to train all weights."
        ) from error
    config = LoraConfig(
        r=rank,
        lora_alpha=LORA_SCALE * rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        bias="none",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        modules: list[Any] = transformers_of(model)
        for module in modules:
            module.model = get_peft_model(module.model, config).eval()


def merge_adapters(model: Any) -> None:
    """Merge the adapters of :func:`add_adapters` into the matrices."""
    modules: list[Any] = transformers_of(model)
    for module in modules:
        module.model = module.model.merge_and_unload()
