"""The comparison of mining profiles."""

from benchmarks.ablation.profiles import differences
from streams.mine.fold import Fold
from tests.streams.judged_log import browse, end, folded, numbered, reasoning, search, written


def test_pairs_are_compared_by_their_browse() -> None:
    steps = [
        search("q", "a", "b"),
        search("r", "c", "d"),
        browse("a"),
        reasoning("a", "relevant"),
        search("s", "e"),
        browse("e"),
        reasoning("e", "irrelevant"),
        end(),
    ]
    log = written(numbered("t", steps))
    counts = differences(folded(log), folded(log, Fold(profile="paper")))
    assert counts == {
        ("relevant", "pairs"): 1,
        ("relevant", "other query"): 1,
        ("relevant", "other negatives"): 1,
        ("relevant", "negatives of reference"): 3,
        ("relevant", "negatives of paper"): 1,
        ("irrelevant", "pairs"): 1,
        ("irrelevant", "other query"): 0,
        ("irrelevant", "other negatives"): 0,
        ("irrelevant", "negatives of reference"): 0,
        ("irrelevant", "negatives of paper"): 0,
    }
