import hashlib
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InputError
from tests.trainer.labelled import example
from trainer.data import training_file

ODD = ("x", 'ünïcödé "\n\u2028')
EXAMPLES = (
    example(1, negatives=(("d2", "text of d2"), ODD), rejected=1, weight=1.25),
    example(2, weight=0.1 + 0.2),
    example(3, negatives=(ODD,)),
)


def test_what_is_dumped_is_parsed() -> None:
    assert training_file.parse(training_file.dump(EXAMPLES), "x") == EXAMPLES


def test_the_bytes_are_canonical() -> None:
    content = training_file.dump(random.Random(0).sample(EXAMPLES, 3))

    assert content == training_file.dump(EXAMPLES)
    assert content.startswith(
        b'{"documents":4,"examples":3,"format":"retrail-training/1"}\n{"doc_id"'
    )
    assert training_file.digest(content) == hashlib.sha256(content).hexdigest()
    changed = (replace(EXAMPLES[0], weight=1.26), *EXAMPLES[1:])
    assert training_file.dump(changed) != content


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False), st.text())
def test_weights_and_texts_survive_exactly(weight: float, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    one = example(1, weight=weight, query=text, positive_text=text)

    assert training_file.parse(training_file.dump([one]), "x") == (one,)


def test_one_document_has_one_text() -> None:
    with pytest.raises(ValueError, match="d1 has two texts"):
        training_file.dump([example(1), example(2, negatives=(("d1", "another"),))])


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
    lines = training_file.dump(EXAMPLES).split(b"\n")[:-1]
    assert callable(damage)

    content = b"".join(row + b"\n" for row in damage(lines))

    with pytest.raises(InputError, match=f"x, line {line}, is not of a training file"):
        training_file.parse(content, "x")
