"""The files that make a folder a sentence-transformers model, beside weights and tokenizer.

::

    modules.json                          the pipeline: Transformer, Pooling, Normalize
    1_Pooling/config.json                 how token vectors become one
    sentence_bert_config.json             max_seq_length
    config_sentence_transformers.json     prompts "query" and "document", similarity

Both spellings are read: that of sentence-transformers up to 5 (``pooling_mode_mean_tokens: true``)
and that of 6 (``pooling_mode: "mean"``). Written is the former, which every version reads.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from schemas.errors import ModelError
from trainer.model.pooling import Pooling

_POOLINGS: dict[str, Pooling] = {
    "mean": "mean",
    "mean_tokens": "mean",
    # A multiple of the mean, hence the same vector once normalised.
    "mean_sqrt_len_tokens": "mean",
    "cls": "cls",
    "cls_token": "cls",
    "lasttoken": "last",
}
_FLAGS: dict[Pooling, str] = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "last": "pooling_mode_lasttoken",
}
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model wants its texts read.

    Attributes:
        pooling: how token vectors become one.
        max_tokens: longest input, special tokens included; ``None`` if no file says.
        query_prefix: put before every query.
        document_prefix: put before every document.
    """

    pooling: Pooling = "mean"
    max_tokens: int | None = None
    query_prefix: str = ""
    document_prefix: str = ""


_PLAIN = Layout()


def read(
    folder: Path, pooling: Pooling | Literal["auto"] = "auto", fallback: Layout = _PLAIN
) -> Layout:
    """Read a model folder.

    Args:
        folder: of the model.
        pooling: overrules what the files say, unless ``auto``.
        fallback: holds where the files say nothing; its prefixes, where they name no prompt at all.

    Raises:
        ModelError: a file is malformed, or asks for something that would give other vectors than
            sentence-transformers gives (a Dense module, max pooling, an excluded prompt).
    """
    modules = _json(folder / "modules.json")
    chosen: Pooling = fallback.pooling if pooling == "auto" else pooling
    if modules is None:
        return replace(fallback, pooling=chosen)
    include_prompt = True
    for module in modules:
        kind = str(module["type"]).rsplit(".", 1)[-1]
        if kind == "Pooling":
            config = _json(folder / module["path"] / "config.json") or {}
            chosen = _pooling_of(config, folder) if pooling == "auto" else pooling
            include_prompt = bool(config.get("include_prompt", True))
        elif kind not in ("Transformer", "Normalize"):
            raise ModelError(
                f"The model in {folder} has a module {kind} that Retrail cannot run "
                "(it knows Transformer, Pooling and Normalize). Choose another model."
            )
    sizes = _json(folder / "sentence_bert_config.json") or {}
    if sizes.get("do_lower_case"):
        raise ModelError(
            f"The model in {folder} lowers its texts outside its tokenizer (do_lower_case in "
            "sentence_bert_config.json), which Retrail does not. Choose another model."
        )
    prompts = (_json(folder / "config_sentence_transformers.json") or {}).get("prompts") or {}
    document_prompts = [prompts[name] for name in _DOCUMENT_PROMPTS if prompts.get(name)]
    query_prefix = prompts.get("query", "")
    document_prefix = document_prompts[0] if document_prompts else ""
    if not (query_prefix or document_prefix):
        query_prefix, document_prefix = fallback.query_prefix, fallback.document_prefix
    layout = Layout(
        pooling=chosen,
        max_tokens=sizes.get("max_seq_length", fallback.max_tokens),
        query_prefix=query_prefix,
        document_prefix=document_prefix,
    )
    if not include_prompt and (layout.query_prefix or layout.document_prefix):
        raise ModelError(
            f"The model in {folder} leaves its prompts out of pooling (include_prompt), which "
            "Retrail does not. Choose another model."
        )
    return layout


def write(folder: Path, layout: Layout, dimension: int) -> None:
    """Make ``folder`` a sentence-transformers model of ``dimension``-dimensional vectors."""
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for index, (path, kind) in enumerate(kinds)
    ]
    flags = {flag: pooling == layout.pooling for pooling, flag in _FLAGS.items()}
    files: dict[str, Any] = {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": dimension, **flags},
        "sentence_bert_config.json": {"max_seq_length": layout.max_tokens, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {"query": layout.query_prefix, "document": layout.document_prefix},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    # Normalize reads nothing, but some versions want its folder, and a lone folder is easily lost.
    normalize = folder / "2_Normalize" / "config.json"
    normalize.parent.mkdir(exist_ok=True)
    normalize.write_text("{}\n", encoding="utf-8")


def _pooling_of(config: dict[str, Any], folder: Path) -> Pooling:
    named = config.get("pooling_mode")
    if named is None:
        names = [
            key.removeprefix("pooling_mode_")
            for key, value in config.items()
            if key.startswith("pooling_mode_") and value is True
        ]
    else:
        names = [named] if isinstance(named, str) else list(named)
    if len(names) != 1 or names[0] not in _POOLINGS:
        raise ModelError(
            f"The model in {folder} pools by {' + '.join(names) or 'nothing'}, which Retrail "
            "cannot do (it knows mean, cls and lasttoken). Set RETRAIL_POOLING if one of these "
            "is meant, else choose another model."
        )
    return _POOLINGS[names[0]]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}). Copy the model again.") from error
