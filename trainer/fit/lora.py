"""LoRA (Hu et al. 2022): a large encoder's matrices stay, and small ones beside them are trained.

Optimiser and gradients then take memory for a hundredth of the weights. When training is over the
small matrices are added into the large ones, so a child is a plain model like every other.
"""

from typing import Any

import torch

from schemas.errors import ConfigurationError
from trainer.model.loading import transformers_of

SCALE = 2
"""LoRA's alpha over its rank."""


def add_adapters(model: Any, rank: int, seed: int) -> None:
    """Put adapters of ``rank`` on all linear layers of a model's transformers, and freeze those.

    Args:
        model: a ``SentenceTransformer``. Its Dense modules, which are small, train whole.
        rank: of the adapters.
        seed: decides their first weights; the vectors are those of the model itself until a step.

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
        lora_alpha=SCALE * rank,
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
    """Undo :func:`add_adapters`, the adapters added into the matrices."""
    modules: list[Any] = transformers_of(model)
    for module in modules:
        module.model = module.model.merge_and_unload()
