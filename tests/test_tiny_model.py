"""Tiny models with one seed are equal, also beside threads that use torch's shared generator."""

import threading
from pathlib import Path

import torch

from tests.tiny_model import write_tiny_model


def test_threads_that_draw_numbers_do_not_change_the_weights(tmp_path: Path) -> None:
    done = threading.Event()

    def draw() -> None:
        while not done.is_set():
            torch.rand(8)

    other = threading.Thread(target=draw)
    other.start()
    try:
        made = [write_tiny_model(tmp_path / str(turn), seed=3) for turn in range(5)]
    finally:
        done.set()
        other.join()
    weights = {(folder / "model.safetensors").read_bytes() for folder in made}
    assert len(weights) == 1
