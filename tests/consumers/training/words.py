"""Held-out pairs and documents of one word each, and an encoder that counts words."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.documents import Document
from schemas.events import Agent
from schemas.pairs import LabelledPair, pair_id
from schemas.settings import Settings
from trainer.data import draws
from trainer.model.encoder import Progress

SEEN = ("amber", "birch", "cedar", "delta")
OWN = ("ember", "fjord", "grove", "heron")
WORDS = SEEN + OWN


class Words:
    """A bag-of-words encoder that ignores some words."""

    def __init__(self, *blind_to: str) -> None:
        self._words = [word for word in WORDS if word not in blind_to]

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        counts = [[text.split().count(word) for word in self._words] for text in texts]
        return np.array(counts, dtype=np.float32).reshape(len(texts), len(self._words))

    def encode_documents(
        self, texts: Sequence[str], *, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        for done in range(1, len(texts) + 1):
            if progress is not None:
                progress(done, len(texts))
        return self.encode_queries(texts)


class Texts:
    """Documents of one word each, after fillers that win all ties; ``owners`` of some."""

    def __init__(self, owners: dict[str, str] | None = None) -> None:
        fillers = {f"a{number}": f"filler {number}" for number in range(20)}
        self._texts = fillers | {f"doc-{word}": word for word in WORDS}
        self._owners = owners or {}

    def owners(self) -> set[str]:
        return {*self._owners.values()}

    def sample(self, count: int, seed: int) -> list[str]:
        return draws.draw(self._texts, count, seed=seed, parent=0)

    def get(self, ids: Iterable[str]) -> dict[str, Document]:
        known = [name for name in ids if name in self._texts]
        return {
            name: Document(doc_id=name, text=self._texts[name], tenant=self._owners.get(name))
            for name in known
        }


def held_out(words: Sequence[str] = SEEN) -> list[LabelledPair]:
    return [
        LabelledPair(
            pair_id=pair_id("", "t", number, "reference"),
            trajectory_id="t",
            browse_seq=number,
            revision="",
            profile="reference",
            query=word,
            positive=f"doc-{word}",
            negatives=(),
            verdict="relevant",
            judge="local",
            judge_version="1",
            rejected=0,
            rank=1,
            outcome="unknown",
            closed_by="end",
            gaps=0,
            agent=Agent(name="a", model="m"),
            tenant="",
        )
        for number, word in enumerate(words)
    ]


def settings(own: Path | None = None, **changes: Any) -> Settings:
    defaults: dict[str, Any] = {"gate_margin": 0.5, "gate_min_queries": 1, "gate_regression": own}
    return Settings(**(defaults | changes))
