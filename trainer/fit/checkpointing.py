"""Activation checkpointing (Chen et al. 2016): a layer keeps its input and computes the rest again.

It costs a third more time and takes the memory of one layer instead of all. It is for an encoder of
which even one group of texts does not fit; a large batch alone needs no more than
:mod:`trainer.fit.gradients` does anyway.
"""

from typing import Any

from transformers.modeling_layers import GradientCheckpointingLayer


def enable(model: Any) -> None:
    """Let ``model`` checkpoint its layers whenever gradients flow; its dropout stays off.

    Raises:
        ValueError: transformers cannot checkpoint this family.
    """
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    # A layer checkpoints only "in training". What is inside, where dropout is, stays in evaluation.
    for layer in _layers(model):
        layer.training = True


def disable(model: Any) -> None:
    """Undo :func:`enable`."""
    model.gradient_checkpointing_disable()
    for layer in _layers(model):
        layer.training = False


def _layers(model: Any) -> list[GradientCheckpointingLayer]:
    return [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
