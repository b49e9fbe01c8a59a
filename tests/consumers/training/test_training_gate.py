"""What the gate takes for relevant, and to which queries."""

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

from consumers.training.training_gate import caps_of, relevance
from schemas.pairs import LabelledPair
from schemas.settings import Settings
from tests.trainer.labelled import labelled


def pair(
    number: int, query: str, positive: str, *earlier_queries: str, **changes: Any
) -> LabelledPair:
    return labelled(
        number, query=query, positive=positive, earlier_queries=earlier_queries, **changes
    )


def asked_for(relevant: Mapping[str, set[str]]) -> Counter[str]:
    """Queries of each document."""
    return Counter(doc_id for some in relevant.values() for doc_id in some)


def test_spellings_of_a_query_are_one_query_in_any_order() -> None:
    pairs = [pair(1, "Open a  File", "a"), pair(2, "open a file", "b")]
    assert relevance(pairs) == relevance(pairs[::-1]) == {"Open a  File": {"a", "b"}}


def test_queries_asked_in_vain_for_the_same_thing_count_as_well() -> None:
    assert relevance([pair(1, "open a file", "a", "open", "read file")]) == {
        "open a file": {"a"},
        "open": {"a"},
        "read file": {"a"},
    }


def test_queries_that_may_have_been_trained_on_are_left_out() -> None:
    found = relevance([pair(1, "open a file", "a", "Open", "read file")], {"open"})
    assert set(found) == {"open a file", "read file"}


HONEST = [pair(number, f"honest {number}", f"d{number}") for number in range(150)]
CAPS = caps_of(Settings(gate_margin=0.02, gate_min_queries=100))


def test_a_pushed_document_has_as_large_a_share_of_the_gate_as_the_margin() -> None:
    pushed = [pair(1000 + n, f"pushed {n}", "pushed") for n in range(60)]
    pushed += [pair(2000 + n, f"honest {n}", "pushed") for n in range(60)]
    found = relevance([*HONEST, *pushed], caps=CAPS)
    assert asked_for(found)["pushed"] == 3
    assert asked_for(found).total() == 153
    assert {f"honest {n}" for n in range(150)} <= set(found)
    assert asked_for(relevance([*HONEST, *pushed]))["pushed"] == 120


def test_a_trajectory_cannot_fill_the_gate_with_queries_that_it_asked_in_vain() -> None:
    flood = [
        pair(1000, "flood", "pushed", *(f"flood {n}" for n in range(40)), trajectory_id="one"),
        pair(1001, "other", "too", *(f"other {n}" for n in range(40)), trajectory_id="one"),
    ]
    found = relevance([*HONEST, *flood], caps=CAPS)
    assert asked_for(found)["pushed"] + asked_for(found)["too"] == 3


def test_repeating_a_judgement_gives_it_no_more_room() -> None:
    pushed = [pair(1000 + n, f"pushed {n % 5}", "pushed") for n in range(200)]
    found = relevance([*HONEST, *pushed], caps=caps_of(Settings(gate_margin=0.1)))
    assert found == relevance(HONEST) | {f"pushed {n}": {"pushed"} for n in range(5)}


def test_what_the_caps_leave_depends_on_the_seed_alone() -> None:
    pushed = [pair(1000 + n, f"pushed {n}", "pushed") for n in range(60)]
    every = [*HONEST, *pushed]
    found = relevance(every, caps=CAPS, seed=1)
    shuffled = random.Random(0).sample(every, len(every))
    assert relevance(shuffled, caps=CAPS, seed=1) == found
    assert relevance(every, caps=CAPS, seed=2) != found


def test_without_a_margin_a_document_has_three_times_as_many_queries_as_others_at_most() -> None:
    pushed = [pair(1000 + n, f"pushed {n}", "pushed") for n in range(60)]
    found = relevance([*HONEST, *pushed], caps=caps_of(Settings(gate_margin=0.0)))
    assert asked_for(found)["pushed"] == 3
