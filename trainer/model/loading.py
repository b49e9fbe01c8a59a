"""A transformer and its tokenizer, read from a folder without running code that lies in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from schemas.errors import ModelError


def read(folder: Path) -> tuple[Any, Any]:
    """The transformer in a folder, weights in float32, and its tokenizer.

    Raises:
        ModelError: as :meth:`trainer.model.encoder.Encoder.load` says.
    """
    from transformers import AutoModel, AutoTokenizer

    try:
        with quietly():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
            model, found = AutoModel.from_pretrained(
                folder,
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:
        raise ModelError(
            f"The model in {folder} cannot be loaded: {error}\nRetrail loads models that the "
            "installed transformers knows, from safetensors, and never runs a model's own code."
        ) from error
    missing = sorted(key for key in found["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ModelError(
            f"The model in {folder} lacks {len(missing)} weights, {missing[0]} first. Its "
            "config.json describes another model than its weights; copy it again."
        )
    if any(key.startswith("pooler.") for key in found["missing_keys"]):
        # Random weights, which no pooling of ours reads, would make every load another model.
        model.pooler = None
    return model, tokenizer


def limits(config: Any, tokenizer: Any) -> list[int | None]:
    """How many tokens the model, and its tokenizer, take; ``None``: any number."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and config.model_type in _OFFSET_POSITIONS:
        positions -= config.pad_token_id + 1
    longest = tokenizer.model_max_length
    # transformers writes "no limit" as a number with thirty digits.
    return [positions, int(longest) if longest and longest < 10**9 else None]


_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "longformer")
"""Families that number positions from ``pad_token_id + 1`` up."""


@contextmanager
def quietly() -> Iterator[None]:
    """Without transformers' progress bars and reports, which would fill a worker's log."""
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
