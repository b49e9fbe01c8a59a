"""From a manifest to a child: the one function that a model is.

A model is a function of its parent's model, the frozen training file and the configuration. The
trainer computes it once (:mod:`consumers.training.run`), and ``retrail train --run`` as often as
somebody asks (:mod:`consumers.training.reproduce`).
"""

from collections.abc import Callable

from schemas.errors import InputError, ModelError, RegistryError
from schemas.releases import Model
from schemas.runs import RunManifest
from trainer.data.examples import TrainingExample
from trainer.fit import finetune
from trainer.fit.finetune import Step, TrainingReport
from trainer.fit.processes import SINGLE_PROCESS, Processes
from trainer.registry.registry import Registry

OnStep = Callable[[Step], None]


def train_child(
    registry: Registry,
    parent: Model,
    manifest: RunManifest,
    *,
    check: Callable[[], None] = lambda: None,
    on_step: OnStep | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> TrainingReport:
    """Train what ``manifest`` describes; nothing is written.

    Args:
        registry: holds the parent's model and the training file.
        check: called between long steps; what it raises ends the work.
        on_step: called after every optimiser step; training ends with what it raises.
        processes: that train it together, each of which makes this call.

    Raises:
        InputError: the training file is missing, or not the one that was frozen.
        ModelError: the parent's model is missing, or not the one that was released.
        TrainingDivergedError, NothingToLearnError: see :func:`trainer.fit.finetune.finetune`.
    """
    frozen = frozen_examples(registry, manifest)
    check()
    encoder = registry.load(parent)
    check()
    return finetune.finetune(encoder, frozen, manifest.config, on_step=on_step, processes=processes)


def frozen_examples(registry: Registry, manifest: RunManifest) -> tuple[TrainingExample, ...]:
    """What a manifest froze.

    Raises:
        InputError: the file is missing, or not the one that was frozen.
        RegistryError: the registry does not answer; the file may be read later.
    """
    try:
        return registry.load_training_file(manifest.training_file)
    except RegistryError:
        raise
    except ModelError as error:
        raise InputError(str(error)) from error
