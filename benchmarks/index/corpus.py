"""Short synthetic documents, and the small model that the benchmark encodes them with."""

import random
from collections.abc import Iterator

from schemas.documents import Document
from trainer.model.encoder import Encoder

LAYERS = 6
"""Of MiniLM. A model here is one of them, with its tokenizer and 384 dimensions: six times as fast,
so that what surrounds the encoder weighs more than it would in earnest."""

SYLLABLES = ("ba", "do", "fen", "gir", "ka", "lum", "mo", "nes", "por", "ri", "sat", "tun")


def model(version: int, layers: int = 1) -> Encoder:
    """Another layer of MiniLM for each of six releases in a row, so no vector of one is another's.

    What it finds makes no sense; what it costs, and whose it is, does.

    Args:
        layers: from that one on; all six give the default model.
    """
    encoder = Encoder.load("minilm", max_tokens=64)
    kept = (version - 1) % LAYERS
    transformer = encoder.model[0].auto_model
    transformer.encoder.layer = transformer.encoder.layer[kept : kept + layers]
    transformer.config.num_hidden_layers = layers
    return encoder


def documents(count: int) -> Iterator[Document]:
    """Documents of 6 to 14 made-up words; the same for the same count."""
    rng = random.Random(0)
    for number in range(count):
        words = _words(rng, rng.randint(6, 14))
        yield Document(
            doc_id=f"doc-{number:07d}", title=f"{words[0]} {number}", text=" ".join(words)
        )


def queries(count: int) -> list[str]:
    """Different queries of three to five of the same words."""
    rng = random.Random(1)
    return [f"{' '.join(_words(rng, rng.randint(3, 5)))} {number}" for number in range(count)]


def queries_of(rng: random.Random, number: int) -> list[str]:
    """The queries of one need: one to three."""
    return [f"{' '.join(_words(rng, 4))} {number}" for _ in range(rng.randint(1, 3))]


def _words(rng: random.Random, count: int) -> list[str]:
    return ["".join(rng.choices(SYLLABLES, k=2)) for _ in range(count)]
