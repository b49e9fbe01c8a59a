from schemas.pairs import LabelledPair
from tests.trainer.labelled import labelled
from trainer.data.draws import is_held_out
from trainer.data.examples import Examples, build, trainable
from trainer.data.weighting import measure

TRAINED = next(n for n in range(100) if not is_held_out(f"query {n}"))
HELD_OUT = next(n for n in range(100) if is_held_out(f"query {n}"))
TEXTS = {"p": "positive", "a": "first", "b": "second", "same": "positive", "again": "first"}


def built(*pairs: LabelledPair) -> Examples:
    chosen = trainable(pairs)
    return build(chosen, TEXTS.get, measure(chosen.pairs))


def pair(number: int = TRAINED, **changes: object) -> LabelledPair:
    return labelled(number, **({"positive": "p", "query": f"query {TRAINED}"} | changes))


def test_texts_and_weights_are_looked_up() -> None:
    found = built(pair(negatives=("a", "b"), rejected=1, reasoning_tokens=30))

    (one,) = found.examples
    assert (one.positive_id, one.positive_text) == ("p", "positive")
    assert one.negatives == (("a", "first"), ("b", "second"))
    assert (one.rejected, one.weight) == (1, 1.0)
    assert found.left_out == found.negatives_left_out == {}


def test_what_does_not_train_is_counted() -> None:
    found = built(
        pair(1),
        pair(1, positive="a"),
        pair(2, verdict="irrelevant"),
        pair(3, query=f"QUERY {HELD_OUT}"),
        pair(4, positive="deleted"),
    )

    assert [e.positive_id for e in found.examples] == ["p"]
    assert found.left_out == {"repeated": 1, "irrelevant": 1, "held out": 1, "no text": 1}


def test_negatives_without_a_text_of_their_own_are_counted_and_left_out() -> None:
    found = built(pair(negatives=("gone", "same", "a", "again", "b"), rejected=4))

    (one,) = found.examples
    assert one.negatives == (("a", "first"), ("b", "second"))
    assert one.rejected == 1
    assert found.negatives_left_out == {"no text": 1, "positive": 1, "repeated": 1}


def test_examples_are_sorted_by_pair_id() -> None:
    pairs = [pair(number) for number in range(20)]

    ids = [e.pair_id for e in built(*pairs).examples]

    assert ids == sorted(p.pair_id for p in pairs)
    assert built(*pairs) == built(*reversed(pairs))
