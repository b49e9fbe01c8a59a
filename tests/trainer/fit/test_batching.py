import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.labelled import example
from trainer.data.draws import normalize_query
from trainer.data.examples import TrainingExample
from trainer.fit.batching import epoch, known_positives, own_negatives

queries = st.lists(st.integers(0, 9), min_size=1, max_size=80)


def of_queries(numbers: list[int]) -> list[TrainingExample]:
    return [
        example(i, query=f"Query {n}" if i % 2 else f" query  {n} ", negatives=(("n", f"n{i}"),))
        for i, n in enumerate(numbers)
    ]


@settings(deadline=None)
@given(queries, st.integers(1, 32), st.integers(0, 5))
def test_an_epoch_holds_each_pair_once_and_a_batch_each_query_once(
    numbers: list[int], size: int, number: int
) -> None:
    examples = of_queries(numbers)

    batches = epoch(examples, size=size, negatives=1, seed=4, number=number)

    assert Counter(p for b in batches for p in b.pair_ids) == Counter(e.pair_id for e in examples)
    for batch in batches:
        assert len(batch.queries) <= size
        assert len({normalize_query(query) for query in batch.queries}) == len(batch.queries)


def test_batch_sizes_differ_by_one_at_most() -> None:
    examples = [example(i) for i in range(70)]

    sizes = [len(b.queries) for b in epoch(examples, size=32, negatives=0, seed=0, number=0)]

    assert sorted(sizes) == [23, 23, 24]


def test_batches_depend_on_the_seed_and_not_on_the_order_of_examples() -> None:
    examples = of_queries([i % 40 for i in range(100)])
    shuffled = random.Random(1).sample(examples, len(examples))

    def batches(some: list[TrainingExample], seed: int = 0, number: int = 0) -> object:
        return epoch(some, size=16, negatives=2, seed=seed, number=number)

    assert batches(examples) == batches(shuffled)
    assert batches(examples) != batches(examples, seed=1)
    assert batches(examples) != batches(examples, number=1)


@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_negatives_are_distinct_and_at_most_the_requested_number(count: int) -> None:
    one = example(0, negatives=tuple((str(i), f"text {i}") for i in range(7)))

    chosen = own_negatives(one, count, known_positives([one]), seed=0, number=0)

    assert len(chosen) == len(set(chosen)) == min(count, 7)


def test_negatives_are_sampled_uniformly_in_each_epoch() -> None:
    one = example(0, negatives=tuple((str(i), f"text {i}") for i in range(50)))
    positives = known_positives([one])

    def drawn(number: int) -> list[str]:
        return own_negatives(one, 4, positives, seed=0, number=number)

    assert drawn(0) == drawn(0)
    assert len({tuple(drawn(number)) for number in range(5)}) == 5
    counts = Counter(text for number in range(2000) for text in drawn(number))
    assert len(counts) == 50
    assert all(90 < count < 240 for count in counts.values())


def test_known_positives_of_a_query_are_never_its_negatives() -> None:
    one = example(1, query="q", positive_text="one", negatives=(("t", "two"), ("n", "no")))
    two = example(2, query="Q", positive_text="two")
    other = example(3, query="other", positive_text="two")
    examples = [one, two, other]

    assert own_negatives(one, 9, known_positives(examples), seed=0, number=0) == ["no"]
    batches = epoch(examples, size=2, negatives=9, seed=0, number=0)

    against = {
        (batch.queries[row], batch.documents[column])
        for batch in batches
        for row in range(len(batch.queries))
        for column in range(len(batch.documents))
        if column not in batch.masked[row] and column != batch.positive[row]
    }
    assert not {("q", "two"), ("Q", "one")} & against
    assert ("q", "no") in against


def test_a_text_that_occurs_twice_is_one_document() -> None:
    examples = [
        example(1, positive_text="same", negatives=(("n", "no"),)),
        example(2, positive_text="same", negatives=(("n", "no"),)),
    ]

    (batch,) = epoch(examples, size=8, negatives=4, seed=0, number=0)

    assert batch.documents == ("same", "no")
    assert batch.positive == (0, 0)


def test_a_single_pair_without_negatives_is_left_out() -> None:
    assert epoch([example(0)], size=8, negatives=4, seed=0, number=0) == []
    lone = example(0, negatives=(("n", "no"),))
    assert len(epoch([lone], size=8, negatives=4, seed=0, number=0)) == 1
    assert epoch([lone], size=8, negatives=0, seed=0, number=0) == []


tenants = st.sampled_from(["", "a", "b"])


@settings(deadline=None)
@given(st.lists(st.tuples(tenants, tenants, st.integers(0, 5)), max_size=40), st.integers(2, 32))
def test_no_query_meets_a_text_that_only_other_tenants_may_see(
    drawn: list[tuple[str, str, int]], size: int
) -> None:
    """A pair has documents of its tenant and of everyone; some have one text."""
    examples = []
    for number, (tenant, owner, text) in enumerate(drawn):
        owner = owner if owner == tenant else ""
        examples.append(
            example(
                number,
                tenant=tenant,
                positive_text=f"text {text}",
                negatives=((f"n{number}", f"negative {text}"),),
                private=frozenset({f"d{number}", f"n{number}"}) if owner else frozenset(),
            )
        )
    may_see: dict[str, set[str]] = {}
    for one in examples:
        for text in (one.positive_text, *dict(one.negatives).values()):
            may_see.setdefault(text, set()).update({one.tenant} if one.private else {"", "a", "b"})
    by_id = {one.pair_id: one for one in examples}

    batches = epoch(examples, size=size, negatives=1, seed=0, number=0)

    for batch in batches:
        for pair_id, own, masked in zip(batch.pair_ids, batch.positive, batch.masked, strict=True):
            seen = {text for at, text in enumerate(batch.documents) if at not in masked}
            tenant = by_id[pair_id].tenant
            assert all(tenant in may_see[text] for text in seen)
            hidden = {batch.documents[at] for at in masked}
            assert all(tenant not in may_see[text] for text in hidden), "nothing else is masked"
            assert own not in masked
