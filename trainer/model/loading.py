"""Loads and saves models as ``SentenceTransformer``, without running a model's own code.

Supported modules of sentence-transformers are Transformer, Pooling (mean, cls or lasttoken), Dense,
Normalize and Router(query, document). A plain transformers folder gets Pooling and Normalize. All
other modules are refused by name.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import structlog
import torch
from safetensors import SafetensorError

from retrail_runtime.files import free_space
from schemas.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer

log = structlog.get_logger(__name__)

PoolingMode = Literal["mean", "cls", "lasttoken"]
"""Mean over the tokens, the first token, or the last one (for decoder models)."""

_MODULES = ("Transformer", "Pooling", "Dense", "Normalize", "Router")
_WITH_WEIGHTS = ("Transformer", "Dense")
_SUPPORTED = (
    "Retrail supports Transformer, Pooling (mean, cls or lasttoken), Dense, Normalize and "
    "Router(query, document). Choose another model."
)

_FALLBACK_TOKENS = 512
"""Maximum length if neither the caller nor the model's files have one."""

_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "longformer")
"""Families whose positions start at ``pad_token_id + 1``."""

_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")


def load(folder: Path, *, pooling: PoolingMode = "mean", device: str) -> "SentenceTransformer":
    """The model in ``folder``, weights in float32.

    Args:
        folder: written by ``SentenceTransformer.save``, or by transformers' ``save_pretrained``.
        pooling: for a transformers folder, which has no Pooling module.
        device: ``cpu``, ``cuda``, …

    Raises:
        ModelError: a module is not supported, weights are missing or pickled, or the model needs
            code of its own.
    """
    modules = _saved_modules(folder)
    for name, _ in modules:
        if name.rsplit(".", 1)[-1] not in _MODULES or not name.startswith("sentence_transformers."):
            raise ModelError(f"The model in {folder} has a module {name}. {_SUPPORTED}")
    directories = [path for name, path in modules if name.endswith(_WITH_WEIGHTS)]
    for directory in directories:
        _require_safetensors(directory)
    try:
        with quiet():
            model = _read(folder, pooling, device)
            transformers = transformers_of(model)
            _remove_missing(
                transformers, [path for name, path in modules if name.endswith("Transformer")]
            )
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"The model in {folder} cannot be loaded: {error}\nRetrail loads models that the "
            "installed sentence-transformers supports, from safetensors, and never runs a model's "
            "own code."
        ) from error
    unsupported = _unsupported(model)
    if unsupported is not None:
        raise ModelError(f"The model in {folder} has a {unsupported}. {_SUPPORTED}")
    return model


def save(model: "SentenceTransformer", path: Path) -> None:
    """Write ``model`` into the folder ``path``; equal models give equal files.

    Raises:
        ModelError: the disk is full, or the folder cannot be written.
    """
    for module in transformers_of(model):
        backend = getattr(module.tokenizer, "backend_tokenizer", None)
        if backend is not None:
            # save_pretrained would write the settings of the last call.
            backend.no_truncation()
            backend.no_padding()
    try:
        with quiet():
            model.save_pretrained(str(path), create_model_card=False, safe_serialization=True)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"Cannot write the model into {path}: {error} ({free_space(path)}). Free space, raise "
            "the limit on file sizes (ulimit -f), or set RETRAIL_DATA_DIR to another disk.",
            path=path,
        ) from error


def transformers_of(model: Any) -> "list[Transformer]":
    """The Transformer modules of a model; two if its Router has one per kind of text."""
    from sentence_transformers.base.modules import Transformer

    return [module for module in model.modules() if isinstance(module, Transformer)]


def prompts_of(folder: Path) -> tuple[str, str]:
    """The prompts of queries and documents in a model's files, or empty strings."""
    prompts = (_json(folder / "config_sentence_transformers.json") or {}).get("prompts") or {}
    return choose_prompts(prompts)


def choose_prompts(prompts: Mapping[str, str | None]) -> tuple[str, str]:
    """The prompts of queries and documents among a model's named prompts."""
    documents = (prompts.get(name) for name in ("document", "passage", "corpus"))
    return prompts.get("query") or "", next(filter(None, documents), "")


def set_prompts(model: "SentenceTransformer", query: str, document: str) -> None:
    """Set the prompts ``query`` and ``document``, unless the model's files have a prompt."""
    own = choose_prompts(model.prompts)
    if any(own):
        if (query, document) not in (("", ""), own):
            log.warning("prefixes ignored: the model has prompts", query=own[0], document=own[1])
        query, document = own
    model.prompts |= {"query": query, "document": document}


def longest_input(transformer: "Transformer") -> int:
    """Maximum input length of a model and its tokenizer, special tokens included."""
    config, limits = transformer.config, [transformer.max_seq_length]
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and config.model_type in _OFFSET_POSITIONS:
        positions -= config.pad_token_id + 1
    limits.append(positions)
    # transformers represents "no limit" by a number with thirty digits.
    return min((n for n in limits if n is not None and 0 < n < 10**9), default=_FALLBACK_TOKENS)


def _read(folder: Path, pooling: PoolingMode, device: str) -> "SentenceTransformer":
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    weights = {"use_safetensors": True, "dtype": torch.float32}
    if (folder / "modules.json").is_file():
        return SentenceTransformer(str(folder), device=device, model_kwargs=weights, **local)
    transformer = Transformer(
        str(folder),
        model_kwargs=weights | local,
        processor_kwargs=dict(local),
        config_kwargs=dict(local),
        # Without it a tokenizer's chat template would wrap every text.
        modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        module_output_name="token_embeddings",
    )
    dimension = transformer.get_embedding_dimension()
    return SentenceTransformer(
        modules=[transformer, Pooling(dimension, pooling), Normalize()], device=device
    )


def _saved_modules(folder: Path) -> list[tuple[str, Path]]:
    """Class and directory of each module, in the model's order."""
    if not (folder / "modules.json").is_file():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{folder} contains no model: modules.json and config.json are missing. Name a "
                "folder written by SentenceTransformer.save or save_pretrained."
            )
        return [("sentence_transformers.base.modules.Transformer", folder)]
    found = []
    for module in _json(folder / "modules.json"):
        directory = folder / module["path"]
        found.append((module["type"], directory))
        if module["type"].endswith(".Router"):
            routes = _json(directory / "router_config.json") or {"structure": {}, "types": {}}
            names = dict.fromkeys(name for route in routes["structure"].values() for name in route)
            found += [(routes["types"][name], directory / name) for name in names]
    return found


def _require_safetensors(directory: Path) -> None:
    if (directory / "adapter_config.json").is_file():
        raise ModelError(
            f"{directory} contains a PEFT adapter without its base model. Merge them "
            "(merge_and_unload) and save the whole model."
        )
    if any(directory.glob("*.safetensors")):
        return
    files = directory.iterdir() if directory.is_dir() else ()
    pickled = sorted(path.name for path in files if path.suffix in _PICKLED)
    if pickled:
        raise ModelError(
            f"{directory} has its weights only as {', '.join(pickled)}, which can run code when "
            "loaded. Retrail reads only safetensors: if you trust the model, load it once and "
            "convert it with SentenceTransformer.save(folder)."
        )
    raise ModelError(f"{directory} contains no weights: it has no .safetensors file.")


def _remove_missing(transformers: "list[Transformer]", directories: list[Path]) -> None:
    """Remove a pooler without weights, which transformers would initialise at random.

    Raises:
        ModelError: other weights are missing.
    """
    for module, directory in zip(transformers, directories, strict=True):
        inner: Any = module.model
        _, report = type(inner).from_pretrained(
            directory,
            local_files_only=True,
            use_safetensors=True,
            device_map="meta",
            output_loading_info=True,
        )
        missing = sorted(report["missing_keys"])
        others = [key for key in missing if not key.startswith("pooler.")]
        if others:
            raise ModelError(
                f"The model in {directory} lacks {len(others)} weights, such as {others[0]}. Its "
                "config.json does not match its weights; copy it again."
            )
        if missing:
            inner.pooler = None


def _unsupported(model: "SentenceTransformer") -> str | None:
    """The first module with an unsupported configuration, or ``None``."""
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    if not isinstance(model[0], Transformer | Router):
        return f"{type(model[0]).__name__} as its first module"
    for module in model.modules():
        match module:
            case Pooling() if module.pooling_mode not in get_args(PoolingMode):
                return f"Pooling by {module.pooling_mode}"
            case Router() if set(module.sub_modules) != {"query", "document"}:
                return f"Router of {', '.join(module.sub_modules)}"
            case Router() if module.route_mappings:
                return "Router with route_mappings"
            case Transformer() if list(module.modality_config) != ["text"]:
                return f"Transformer of {', '.join(map(str, module.modality_config))}"
            case Transformer() if module.transformer_task != "feature-extraction":
                return f"Transformer for {module.transformer_task}"
            case Transformer() if module.query_expansion is not None:
                return "Transformer with query_expansion"
    return None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}). Copy the model again.") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress transformers' progress bars and reports, which would flood a worker's log."""
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


Precision = Literal["auto", "float32", "bfloat16"]


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 natively, faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def encodes_in_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether texts are encoded in bfloat16, rather than in float32."""
    return precision == "bfloat16" or (precision == "auto" and computes_in_bfloat16(device))


def with_own_weights(model: "SentenceTransformer") -> "SentenceTransformer":
    """A copy with its own weights, which shares the tokenizers."""
    shared = [module.processor for module in transformers_of(model)]
    return copy.deepcopy(model, {id(processor): processor for processor in shared})


def in_bfloat16(model: "SentenceTransformer") -> "SentenceTransformer":
    """``model`` itself, for encoding: transformers in bfloat16, the small modules in float32."""
    for module in transformers_of(model):
        module.to(torch.bfloat16)
        module.register_forward_hook(_states_to_float32)
    return model.eval()


def _states_to_float32(_: Any, __: Any, features: dict[str, Any]) -> dict[str, Any]:
    return features | {"token_embeddings": features["token_embeddings"].float()}
