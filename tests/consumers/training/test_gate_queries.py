"""The queries that the gate compares on."""

import json
from typing import cast

import pytest

from consumers.training.gate import certain_hold, choose, compare
from consumers.training.metrics import comparing
from schemas.events import Outcome
from schemas.pairs import LabelledPair
from tests.consumers.training.words import OWN, SEEN, WORDS, Texts, Words, held_out, settings
from trainer.evaluate import frozen
from trainer.model.encoder import Encoder


def test_queries_new_since_the_parent_are_preferred_if_there_are_enough() -> None:
    earlier, new = held_out(SEEN), held_out((*OWN, SEEN[0]))

    enough = choose(new, earlier, [], Texts(), settings(gate_min_queries=4))
    assert (sorted(enough.held_out), enough.since_parent) == (sorted(OWN), True)

    too_few = choose(new, earlier, [], Texts(), settings(gate_min_queries=5))
    assert (sorted(too_few.held_out), too_few.since_parent) == (sorted(WORDS), False)

    first = choose(new, [], [], Texts(), settings(gate_min_queries=1))
    assert not first.since_parent, "there is no query of before"


def test_pairs_of_wrong_answers_do_not_count() -> None:
    outcomes: list[Outcome] = ["incorrect", "correct", "unknown", "incorrect"]
    pairs = [
        pair.model_copy(update={"outcome": outcome})
        for pair, outcome in zip(held_out(), outcomes, strict=True)
    ]
    few = settings(gate_min_queries=3)
    chosen = choose(pairs[2:], pairs[:2], [], Texts(), few)
    assert (sorted(chosen.held_out), chosen.wrong) == ([SEEN[1], SEEN[2]], 2)
    assert "; 2 pairs do not count because the answer was wrong" in certain_hold(chosen, few)


def test_many_queries_are_sampled_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.training.gate.QUERIES", 3)
    found = [choose(held_out(), [], [], Texts(), settings(train_seed=n)) for n in range(9)]
    assert {len(one.held_out) for one in found} == {3}
    assert len({tuple(one.held_out) for one in found}) > 1
    assert found[0] == choose(held_out(), [], [], Texts(), settings(train_seed=0))
    needed = choose(held_out(), [], [], Texts(), settings(gate_min_queries=4))
    assert len(needed.held_out) == 4, "the minimum must be within reach"


OWNERS = {"doc-amber": "one", "doc-birch": "two", "a0": "one", "a1": "two", "a2": "three"}


def of_tenants(**tenants: str) -> list[LabelledPair]:
    return [pair.model_copy(update={"tenant": tenants.get(pair.query, "")}) for pair in held_out()]


def test_queries_are_asked_with_their_tenant_and_find_what_it_may_see() -> None:
    corpus = Texts(OWNERS)
    pairs = of_tenants(amber="one", birch="one", cedar="two", delta="four")

    questions = choose(pairs, [], [], corpus, settings())

    assert dict(questions.held_out) == {
        "amber": {"doc-amber"},
        "cedar": {"doc-cedar"},
        "delta": {"doc-delta"},
    }, "birch is about a document of another tenant"
    assert questions.unknown == 1
    assert questions.tenants == {"amber": "one", "cedar": "two", "delta": ""}
    _, results = compare(
        cast(Encoder, Words()),
        cast(Encoder, Words("amber", "cedar", "delta")),
        questions,
        corpus,
        settings=settings(),
        progress=comparing(lambda: None),
    )
    *lines, pool = [json.loads(line) for line in results.splitlines()]
    assert {"a0", "a1", "a2"} < {*pool["documents"]}, "one pool for all queries"
    assert {line["query"]: line["tenant"] for line in lines} == questions.tenants
    for line in lines:
        hits = {*line["child"]["hits"], *line["parent"]["hits"]}
        assert all(OWNERS.get(hit, "") in ("", line["tenant"]) for hit in hits)
        assert ("a0" in hits) is (line["tenant"] == "one")
    assert frozen.parse(results).tenants == questions.tenants


def test_a_query_that_several_tenants_asked_is_compared_on_everyones_documents() -> None:
    other = [pair.model_copy(update={"tenant": "two"}) for pair in held_out(["cedar", "amber"])]
    pairs = [*of_tenants(amber="one", cedar="one"), *other]
    questions = choose(pairs, [], [], Texts(OWNERS), settings())
    assert (questions.held_out.get("amber"), questions.tenants["cedar"]) == (None, "")


def test_without_documents_of_tenants_no_query_is_limited() -> None:
    assert choose(of_tenants(amber="one"), [], [], Texts(), settings()).tenants == {}
