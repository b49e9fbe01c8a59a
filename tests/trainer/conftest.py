"""Tiny models, so that encoding and training take milliseconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.tiny_model import write_tiny_model
from tests.torch_threads import torch_threads
from trainer.model.encoder import Encoder


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def two_cores() -> Iterator[None]:
    """Two torch threads, for parallel work."""
    with torch_threads(2):
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def encoder(tiny: Path) -> Encoder:
    """A tiny encoder in float32."""
    return Encoder.load(tiny, precision="float32", device="cpu")
