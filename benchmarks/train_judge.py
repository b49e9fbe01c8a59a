"""Fits the weights of the local judge: ``python -m benchmarks.train_judge [--cross-validate]``.

Logistic regression with an L2 penalty on the features of ``streams/reasoning_features.py``.
Deterministic; writes ``streams/local_judge.json``. The cross-validation leaves out one manner of
writing at a time, and writes nothing.
"""

import json
import math
import random
import sys
from collections import Counter
from collections.abc import Sequence

from benchmarks.labelled import Labelled, labelled
from streams.local_judge import WEIGHTS_FILE, score, tables_of
from streams.reasoning_features import features

PARTS = ("tuning", "voices", "scripted", "held-out-1")
EPOCHS = 40
RATE = 0.2
PENALTY = 3e-4
RAREST = 2
"""Features in fewer texts are left out."""

IRRELEVANT = 0.6
"""Weight of the class against the other's, so that errors in unseen manners are balanced."""

SMALLEST = 0.02
"""Weights below this are left out of the file."""

Weights = dict[str, float]


def fit(texts: Sequence[Labelled], seed: int = 0) -> Weights:
    """Weights by AdaGrad; positive ones speak for "irrelevant", the empty name is the bias."""
    rows = [(features(text.text), text.irrelevant) for text in texts]
    counts = Counter(name for row, _ in rows for name in row)
    kept = [({n: v for n, v in row.items() if counts[n] >= RAREST}, label) for row, label in rows]
    share = sum(label for _, label in kept) / len(kept)
    weights: Weights = {"": 0.0}
    squares: Weights = {"": 1e-6}
    draw = random.Random(seed)
    for _ in range(EPOCHS):
        draw.shuffle(kept)
        for row, label in kept:
            total = weights[""] + sum(weights.get(n, 0.0) * v for n, v in row.items())
            probability = 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, total))))
            error = (probability - label) * (
                IRRELEVANT / share if label else (1.0 - IRRELEVANT) / (1.0 - share)
            )
            for name, value in (("", 1.0), *row.items()):
                weight = weights.get(name, 0.0)
                slope = error * value + PENALTY * weight
                squares[name] = squares.get(name, 1e-6) + slope * slope
                weights[name] = weight - RATE * slope / math.sqrt(squares[name])
    return {n: round(w, 3) for n, w in sorted(weights.items()) if abs(w) >= SMALLEST}


def cross_validate(texts: Sequence[Labelled]) -> None:
    """Print how many of each class are right in a manner that the weights have not seen."""
    for source in sorted({text.source for text in texts}):
        tables = tables_of(fit([text for text in texts if text.source != source]))
        table: Counter[tuple[bool, bool]] = Counter(
            (text.irrelevant, score(text.text, tables) > 0.0)
            for text in texts
            if text.source == source
        )
        print(
            f"{source:60} irrelevant {table[True, True]}/{table[True, True] + table[True, False]}"
            f"  relevant {table[False, False]}/{table[False, False] + table[False, True]}",
            flush=True,
        )


def main(arguments: list[str]) -> None:
    """Fit on all labelled parts but the one never looked at."""
    texts = [text for part in PARTS for text in labelled(part)]
    if "--cross-validate" in arguments:
        cross_validate(texts)
        return
    weights = fit(texts)
    WEIGHTS_FILE.write_text(json.dumps(weights, indent=0, ensure_ascii=False) + "\n")
    print(f"{len(texts)} texts, {len(weights)} weights: {WEIGHTS_FILE}")


if __name__ == "__main__":
    main(sys.argv[1:])
