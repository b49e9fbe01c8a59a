"""Fits the weights of the local judge: ``python -m benchmarks.train_judge [--cross-validate]``.

scikit-learn's logistic regression with an L2 penalty, on the features of
``streams/judge/local.py``. Deterministic; writes ``streams/judge/local.json``.
The cross-validation leaves out one file at a time, and writes nothing.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence

from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression

from benchmarks.labelled import Labelled, composed, labelled
from streams.judge.local import (
    WEIGHTS_FILE,
    ZONES,
    plain_text,
    read,
    score,
    weights_of,
)

PARTS = (
    *("tuning", "voices", "scripted", "held-out-1", "agents"),
    *("wikipedia", "manners", "chunks", "models", "pairs"),
)
COMPOSED = 2
"""Texts for each sentence of ``phrases.json``."""

COMPOSED_WEIGHT = 0.3
"""Of a composed text against one that was written as a whole."""

STRENGTH = 0.3
"""scikit-learn's C: the inverse of the penalty."""

RAREST = 3
"""Features in fewer texts are left out."""

SMALLEST = 0.01
"""Weights below this are left out of the file."""

Named = dict[str, float]


def features(text: str) -> set[str]:
    """The features by name: the prefix of the zone, then a word, a class, or two with a space."""
    return {
        zone + (feature if isinstance(feature, str) else " ".join(feature))
        for zone, found in zip(ZONES, read(plain_text(text)), strict=True)
        for feature in found
    }


def fit(written: Sequence[Labelled]) -> Named:
    """Weights by name; positive ones mean "irrelevant", the empty name is the bias."""
    more = composed(COMPOSED)
    texts = [*written, *more]
    each = [1.0] * len(written) + [COMPOSED_WEIGHT] * len(more)
    rows = [features(text.text) for text in texts]
    counts = Counter(name for row in rows for name in row)
    kept = [{name: 1.0 for name in sorted(row) if counts[name] >= RAREST} for row in rows]
    labels = [text.irrelevant for text in texts]
    vectorizer = DictVectorizer()
    model = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=1_000)
    model.fit(vectorizer.fit_transform(kept), labels, sample_weight=each)
    found = dict(zip(vectorizer.get_feature_names_out(), model.coef_[0], strict=True))
    found[""] = model.intercept_[0]
    return {n: round(float(w), 3) for n, w in sorted(found.items()) if abs(w) >= SMALLEST}


def cross_validate() -> None:
    """Print how many of each class are right in a file that the weights have not seen."""
    total: Counter[tuple[bool, bool]] = Counter()
    for part in PARTS:
        weights = weights_of(fit([text for p in PARTS if p != part for text in labelled(p)]))
        table: Counter[tuple[bool, bool]] = Counter(
            (text.irrelevant, score(read(plain_text(text.text)), weights) > 0.0)
            for text in labelled(part)
        )
        _report(part, table)
        total += table
    _report("all", total)


def _report(part: str, table: Counter[tuple[bool, bool]]) -> None:
    irrelevant = table[True, True] + table[True, False]
    relevant = table[False, False] + table[False, True]
    print(
        f"{part:12} irrelevant {table[True, True]}/{irrelevant}"
        f"  relevant {table[False, False]}/{relevant}",
        flush=True,
    )


def main(arguments: list[str]) -> None:
    """Fit on all labelled parts but those that are held out."""
    if "--cross-validate" in arguments:
        cross_validate()
        return
    texts = [text for part in PARTS for text in labelled(part)]
    weights = fit(texts)
    compact = json.dumps(weights, ensure_ascii=False, separators=(",", ":"))
    WEIGHTS_FILE.write_text(compact + "\n", encoding="utf-8")
    print(f"{len(texts)} texts, {len(weights)} weights: {WEIGHTS_FILE}")


if __name__ == "__main__":
    main(sys.argv[1:])
