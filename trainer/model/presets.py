"""Presets by model family: pooling, prompts and hyper-parameters.

A preset has the lowest priority. A setting (``RETRAIL_TRAIN_LEARNING_RATE``, …) overrides its
hyper-parameters, and the model's files override its pooling and prompts.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from schemas.settings import PresetName
from trainer.model.loading import PoolingMode, prompts_of

SEARCH_TASK = "Given a web search query, retrieve relevant passages that answer the query"
"""The instruction in Qwen3-Embedding's prompt "query" and in E5-instruct's README."""


@dataclass(frozen=True, slots=True)
class Preset:
    """Pooling, prompts and hyper-parameters.

    Attributes:
        pooling: of a model without sentence-transformers files.
        query_prefix, document_prefix: of a model whose files have no prompts.
        negatives: K, a pair's own negatives; LRAT's group size 10 is a positive and 9 negatives.
    """

    pooling: PoolingMode = "mean"
    query_prefix: str = ""
    document_prefix: str = ""
    epochs: int = 2
    batch: int = 32
    negatives: int = 9
    learning_rate: float = 1e-6
    temperature: float = 0.02


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        # Ours, measured on the demo's corpus (docs/training.md).
        "minilm": Preset(negatives=4, learning_rate=3e-5, temperature=0.05),
        # Hyper-parameters of the others: LRAT, "Implementation". Prefixes: the models' READMEs.
        "e5": Preset("mean", "query: ", "passage: "),
        "e5-instruct": Preset("mean", f"Instruct: {SEARCH_TASK}\nQuery: "),
        "qwen3-embedding": Preset("lasttoken", f"Instruct: {SEARCH_TASK}\nQuery:"),
    }
)
"""Presets by name; ``minilm`` is also the default for other families."""

_E5 = re.compile(r"(^|[^a-z0-9])e5([^a-z0-9]|$)")


def preset(wanted: PresetName, folder: Path, name: str = "") -> Preset:
    """The preset of a model.

    Args:
        wanted: name of a preset; ``auto`` selects it by the model's family.
        folder: of the model.
        name: RETRAIL_MODEL, such as ``intfloat/e5-base-v2``. Empty for a model of the registry,
            whose family follows from its prompts.
    """
    return PRESETS[family(folder, name) if wanted == "auto" else wanted]


def family(folder: Path, name: str = "") -> str:
    """The name of the preset that suits the model in ``folder``."""
    config = folder / "config.json"
    if config.is_file() and json.loads(config.read_bytes()).get("model_type") == "qwen3":
        return "qwen3-embedding"
    is_e5 = bool(_E5.search(name.lower()))
    if is_e5 and "instruct" in name.lower():
        return "e5-instruct"
    prompts = prompts_of(folder)
    for known in ("e5", "e5-instruct"):
        if prompts == (PRESETS[known].query_prefix, PRESETS[known].document_prefix):
            return known
    return "e5" if is_e5 else "minilm"
