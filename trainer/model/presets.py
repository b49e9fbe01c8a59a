"""Recipes by family of model: how texts are read, and the hyper-parameters that suit it.

A preset only fills what nobody else says. A setting (``RETRAIL_INDEX_QUERY_PREFIX``,
``RETRAIL_TRAIN_LEARNING_RATE``, …) overrules it, and so do the model's own files for what they
name: pooling and prompts.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from tokenizers.processors import Sequence, TemplateProcessing

from schemas.settings import PresetName
from trainer.model import layout as layouts
from trainer.model.layout import Layout

SEARCH_TASK = "Given a web search query, retrieve relevant passages that answer the query"
"""The instruction that Qwen3-Embedding's own prompt "query" and E5-instruct's README give."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A recipe.

    Attributes:
        layout: pooling and prefixes of a model whose files name none.
        padding_side: that its tokenizer is saved with, for other tools; ``None``: its own. We pad
            on the right, which changes no vector: pooling reads the mask, and a decoder never
            looks ahead.
        ends_with_eos: whether the last token of every text must be a special one, which is then
            what a decoder's vector is taken from.
        negatives: K, own negatives of a pair; LRAT's group of 10 is a positive and 9 of them.
    """

    layout: Layout
    epochs: int = 2
    batch: int = 32
    negatives: int = 9
    learning_rate: float = 1e-6
    temperature: float = 0.02
    padding_side: Literal["left", "right"] | None = None
    ends_with_eos: bool = False


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        # Ours, measured on the demo's corpus (docs/training.md).
        "minilm": Preset(Layout("mean"), negatives=4, learning_rate=3e-5, temperature=0.05),
        # Hyper-parameters of the others: LRAT, "Implementation". Prefixes: the models' READMEs.
        "e5": Preset(Layout("mean", None, "query: ", "passage: ")),
        "e5-instruct": Preset(Layout("mean", None, f"Instruct: {SEARCH_TASK}\nQuery: ")),
        "qwen3-embedding": Preset(
            Layout("last", None, f"Instruct: {SEARCH_TASK}\nQuery:"),
            padding_side="left",
            ends_with_eos=True,
        ),
    }
)
"""By name; ``minilm`` is also the one of families that have none."""


def prepare(tokenizer: Any, preset: Preset) -> None:
    """Make a model's tokenizer what the preset asks for; a saved model then carries it on."""
    if preset.padding_side is not None:
        tokenizer.padding_side = preset.padding_side
        # What is saved are the arguments that it was made with.
        tokenizer.init_kwargs["padding_side"] = preset.padding_side
    if not preset.ends_with_eos:
        return
    last = tokenizer("text")["input_ids"][-1]
    if last in tokenizer.all_special_ids or tokenizer.eos_token is None:
        return
    backend = tokenizer.backend_tokenizer
    eos = str(tokenizer.eos_token)
    template = TemplateProcessing(
        single=f"$A {eos}",
        pair=f"$A {eos} $B {eos}",
        special_tokens=[(eos, tokenizer.eos_token_id)],
    )
    earlier = backend.post_processor
    backend.post_processor = template if earlier is None else Sequence([earlier, template])


_E5 = re.compile(r"(^|[^a-z0-9])e5([^a-z0-9]|$)")


def preset(wanted: PresetName, folder: Path, name: str = "") -> Preset:
    """The recipe of a model.

    Args:
        wanted: its name; ``auto``: by the model's family.
        folder: of the model.
        name: that the model was asked for by, such as ``intfloat/e5-base-v2``. A model of the
            registry has none: its prefixes, which lie with it, tell.
    """
    return PRESETS[family(folder, name) if wanted == "auto" else wanted]


def family(folder: Path, name: str = "") -> str:
    """The name of the preset that suits the model in ``folder``."""
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind == "qwen3":
        return "qwen3-embedding"
    found = layouts.read(folder, "mean")
    is_e5 = bool(_E5.search(name.lower()))
    if is_e5 and "instruct" in name.lower():
        return "e5-instruct"
    prefixes = (found.query_prefix, found.document_prefix)
    for known in ("e5", "e5-instruct"):
        wanted = PRESETS[known].layout
        if prefixes == (wanted.query_prefix, wanted.document_prefix):
            return known
    return "e5" if is_e5 else "minilm"
