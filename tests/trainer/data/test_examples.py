import hashlib
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InputError
from schemas.pairs import LabelledPair
from tests.trainer.labelled import example, labelled
from trainer.data.draws import is_held_out
from trainer.data.examples import Examples, build, dump_file, file_digest, parse_file, trainable
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
    assert one.weight == 1.0
    assert found.left_out == {}


def test_pairs_that_do_not_train_are_counted() -> None:
    found = built(
        pair(1),
        pair(1, positive="a"),
        pair(2, verdict="irrelevant"),
        pair(3, query=f"QUERY {HELD_OUT}"),
        pair(4, positive="deleted"),
    )

    assert [e.positive_id for e in found.examples] == ["p"]
    assert found.left_out == {"repeated": 1, "irrelevant": 1, "held out": 1, "no text": 1}


def test_negatives_without_a_distinct_text_are_left_out() -> None:
    found = built(pair(negatives=("gone", "same", "a", "again", "b"), rejected=4))

    (one,) = found.examples
    assert one.negatives == (("a", "first"), ("b", "second"))


def test_examples_are_sorted_by_pair_id() -> None:
    pairs = [pair(number) for number in range(20)]

    ids = [e.pair_id for e in built(*pairs).examples]

    assert ids == sorted(p.pair_id for p in pairs)
    assert built(*pairs) == built(*reversed(pairs))


ODD = ("x", 'ünïcödé "\n\u2028')
EXAMPLES = (
    example(1, negatives=(("d2", "text of d2"), ODD), weight=1.25),
    example(2, weight=0.1 + 0.2),
    example(3, negatives=(ODD,)),
)


def test_a_file_round_trips() -> None:
    assert parse_file(dump_file(EXAMPLES), "x") == EXAMPLES
    assert b"tenant" not in dump_file(EXAMPLES)


def test_a_file_with_documents_of_a_tenant_round_trips() -> None:
    of_tenant = example(4, negatives=(ODD,), tenant="a", private=frozenset({"d4"}))
    examples = (*EXAMPLES, of_tenant, example(5, tenant="b"))
    assert parse_file(dump_file(examples), "x") == examples


def test_a_file_with_an_example_of_an_earlier_query_round_trips() -> None:
    examples = (*EXAMPLES, example(4, found_by="1" * 32))
    assert parse_file(dump_file(examples), "x") == examples
    assert b"found_by" not in dump_file(EXAMPLES)


def test_the_bytes_are_canonical() -> None:
    content = dump_file(random.Random(0).sample(EXAMPLES, 3))

    assert content == dump_file(EXAMPLES)
    assert content.startswith(
        b'{"documents":4,"examples":3,"format":"retrail-training/1"}\n{"doc_id"'
    )
    assert file_digest(content) == hashlib.sha256(content).hexdigest()
    changed = (replace(EXAMPLES[0], weight=1.26), *EXAMPLES[1:])
    assert dump_file(changed) != content


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False), st.text())
def test_weights_and_texts_survive_exactly(weight: float, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    one = example(1, weight=weight, query=text, positive_text=text)

    assert parse_file(dump_file([one]), "x") == (one,)


def test_two_texts_of_one_document_are_an_error() -> None:
    with pytest.raises(ValueError, match="d1 has two texts"):
        dump_file([example(1), example(2, negatives=(("d1", "another"),))])


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda lines: lines[:-1], 1),
        (lambda lines: [], 1),
        (lambda lines: [b'{"format":"other/1"}', *lines[1:]], 1),
        (lambda lines: [*lines[:2], b'{"doc_id":', *lines[3:]], 3),
        (lambda lines: [lines[0], lines[1], lines[1], *lines[3:]], 6),
    ],
)
def test_a_damaged_file_names_the_line(damage: object, line: int) -> None:
    lines = dump_file(EXAMPLES).split(b"\n")[:-1]
    assert callable(damage)

    content = b"".join(row + b"\n" for row in damage(lines))

    with pytest.raises(InputError, match=f"x, line {line}: not a valid training file"):
        parse_file(content, "x")
