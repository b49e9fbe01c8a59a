"""Fits the weights of the local judge: ``python -m benchmarks.train_judge [--cross-validate]``.

scikit-learn's logistic regression with an L2 penalty, on the features of
``streams/judge/features.py``. Deterministic; writes ``streams/judge/local.json``.
The cross-validation leaves out one manner of writing at a time, and writes nothing.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence

from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression

from benchmarks.labelled import Labelled, labelled
from streams.judge.features import features
from streams.judge.local import WEIGHTS_FILE, score, tables_of

PARTS = (
    *("tuning", "voices", "scripted", "held-out-1", "agents"),
    *("wikipedia", "manners", "chunks", "models"),
)
STRENGTH = 0.3
"""scikit-learn's C: the inverse of the penalty."""

RAREST = 2
"""Features in fewer texts are left out."""

IRRELEVANT = 0.6
"""Weight of the class against the other's, so that errors in unseen manners are balanced."""

SMALLEST = 0.004
"""Weights below this are left out of the file."""

Weights = dict[str, float]


def fit(texts: Sequence[Labelled]) -> Weights:
    """Weights; positive ones speak for "irrelevant", the empty name is the bias."""
    rows = [features(text.text) for text in texts]
    counts = Counter(name for row in rows for name in row)
    kept = [{n: v for n, v in row.items() if counts[n] >= RAREST} for row in rows]
    labels = [text.irrelevant for text in texts]
    share = sum(labels) / len(labels)
    by_class = {True: IRRELEVANT / share, False: (1.0 - IRRELEVANT) / (1.0 - share)}
    vectorizer = DictVectorizer()
    model = LogisticRegression(C=STRENGTH, class_weight=by_class, max_iter=1_000)
    model.fit(vectorizer.fit_transform(kept), labels)
    found = dict(zip(vectorizer.get_feature_names_out(), model.coef_[0], strict=True))
    found[""] = model.intercept_[0]
    return {n: round(float(w), 3) for n, w in sorted(found.items()) if abs(w) >= SMALLEST}


def cross_validate(texts: Sequence[Labelled]) -> None:
    """Print how many of each class are right in a manner that the weights have not seen."""
    total: Counter[tuple[bool, bool]] = Counter()
    for source in sorted({text.source for text in texts}):
        tables = tables_of(fit([text for text in texts if text.source != source]))
        table: Counter[tuple[bool, bool]] = Counter(
            (text.irrelevant, score(text.text, tables) > 0.0)
            for text in texts
            if text.source == source
        )
        _report(source, table)
        total += table
    _report("all", total)


def _report(source: str, table: Counter[tuple[bool, bool]]) -> None:
    irrelevant = table[True, True] + table[True, False]
    relevant = table[False, False] + table[False, True]
    print(
        f"{source:60} irrelevant {table[True, True]}/{irrelevant}"
        f"  relevant {table[False, False]}/{relevant}",
        flush=True,
    )


def main(arguments: list[str]) -> None:
    """Fit on all labelled parts but those never looked at."""
    texts = [text for part in PARTS for text in labelled(part)]
    if "--cross-validate" in arguments:
        cross_validate(texts)
        return
    weights = fit(texts)
    WEIGHTS_FILE.write_text(json.dumps(weights, ensure_ascii=False) + "\n")
    print(f"{len(texts)} texts, {len(weights)} weights: {WEIGHTS_FILE}")


if __name__ == "__main__":
    main(sys.argv[1:])
