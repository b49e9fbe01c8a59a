"""Relevant documents of held-out queries."""

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

from schemas.pairs import LabelledPair
from schemas.settings import Settings
from tests.trainer.labelled import labelled
from trainer.data.draws import is_held_out
from trainer.evaluate.queries import caps_of, relevance, trained_queries


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


def test_earlier_queries_without_the_document_count_as_well() -> None:
    assert relevance([pair(1, "open a file", "a", "open", "read file")]) == {
        "open a file": {"a"},
        "open": {"a"},
        "read file": {"a"},
    }


def test_pairs_of_wrong_answers_are_left_out() -> None:
    wrong = pair(1, "open a file", "a", "open", outcome="incorrect")
    assert relevance([wrong, pair(2, "read", "b", outcome="unknown")]) == {"read": {"b"}}
    right = pair(3, "open a file", "a", outcome="correct")
    assert relevance([wrong, right]) == {"open a file": {"a"}}, "another agent was right"


def test_queries_that_may_have_been_trained_on_are_left_out() -> None:
    found = relevance([pair(1, "open a file", "a", "Open", "read file")], {"open"})
    assert set(found) == {"open a file", "read file"}


HONEST = [pair(number, f"honest {number}", f"d{number}") for number in range(150)]
CAPS = caps_of(Settings())


def test_a_pushed_document_has_a_capped_share_of_judgements() -> None:
    pushed = [pair(1000 + n, f"pushed {n}", "pushed") for n in range(60)]
    pushed += [pair(2000 + n, f"honest {n}", "pushed") for n in range(60)]
    found = relevance([*HONEST, *pushed], limits=CAPS)
    assert asked_for(found)["pushed"] == 3
    assert asked_for(found).total() == 153
    assert {f"honest {n}" for n in range(150)} <= set(found)
    assert asked_for(relevance([*HONEST, *pushed]))["pushed"] == 120


def test_queries_that_may_have_trained_are_those_of_pairs_and_their_earlier_ones() -> None:
    held = next(query for n in range(99) if is_held_out(query := f"held {n}"))
    before = next(query for n in range(99) if not is_held_out(query := f"Before {n}"))
    own = next(query for n in range(99) if not is_held_out(query := f"own {n}"))
    assert trained_queries([pair(1, own, "a", held, before)]) == {own, before.lower()}


def test_a_trajectory_cannot_fill_the_gate_with_earlier_queries() -> None:
    flood = [
        pair(1000, "flood", "pushed", *(f"flood {n}" for n in range(40)), trajectory_id="one"),
        pair(1001, "other", "too", *(f"other {n}" for n in range(40)), trajectory_id="one"),
    ]
    found = relevance([*HONEST, *flood], limits=CAPS)
    assert asked_for(found)["pushed"] + asked_for(found)["too"] == 3


def test_a_repeated_judgement_counts_once() -> None:
    pushed = [pair(1000 + n, f"pushed {n % 5}", "pushed") for n in range(200)]
    found = relevance([*HONEST, *pushed], limits=CAPS.model_copy(update={"document": 0.1}))
    assert found == relevance(HONEST) | {f"pushed {n}": {"pushed"} for n in range(5)}


def test_capped_judgements_depend_on_the_seed_alone() -> None:
    pushed = [pair(1000 + n, f"pushed {n}", "pushed") for n in range(60)]
    every = [*HONEST, *pushed]
    found = relevance(every, limits=CAPS, seed=1)
    shuffled = random.Random(0).sample(every, len(every))
    assert relevance(shuffled, limits=CAPS, seed=1) == found
    assert relevance(every, limits=CAPS, seed=2) != found


def test_gate_settings_do_not_affect_the_queries() -> None:
    assert caps_of(Settings(gate_margin=0.5, gate_min_queries=7)) == CAPS
    assert caps_of(Settings(train_cap_agent=0.3, train_cap_tenant=0.4)) == CAPS.model_copy(
        update={"agent": 0.3, "tenant": 0.4}
    )


def test_among_few_documents_one_has_at_most_three_equal_shares() -> None:
    pushed = [pair(1000 + n, f"pushed {n}", "pushed") for n in range(60)]
    tiny = CAPS.model_copy(update={"trajectory": 1e-6, "document": 1e-6})
    found = relevance([*HONEST, *pushed], limits=tiny)
    assert asked_for(found)["pushed"] == 3
