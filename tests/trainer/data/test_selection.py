"""Selection of a run's pairs from plain values."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.documents import Document
from schemas.pairs import LabelledPair
from schemas.runs import Range
from schemas.settings import Settings
from tests.consumers.training.world import World
from tests.trainer.labelled import labelled, unlike
from trainer.data import examples
from trainer.data.caps import ORDINARY_RUN
from trainer.data.draws import draw_of, is_held_out
from trainer.data.selection import OVER, REASONS, Selection, Selector, rules_of
from trainer.data.weighting import Variant

NEW = Range(topic="pairs", partition=0, start=10, end=20)
EARLIER = Range(topic="pairs", partition=0, start=0, end=10)


class Pairs:
    """A source of pairs."""

    def __init__(
        self, new: list[LabelledPair], earlier: list[LabelledPair], variant: Variant
    ) -> None:
        self.by_range = {NEW: new, EARLIER: earlier}
        self.variant = variant

    def within(self, ranges: Iterable[Range]) -> list[LabelledPair]:
        return [pair for span in ranges for pair in self.by_range[span]]

    def in_turn(self, ranges: Iterable[Range], start: int) -> list[LabelledPair]:
        found = examples.trainable(self.within(ranges), variant=self.variant).pairs
        draws = {pair.pair_id: draw_of(pair.pair_id) for pair in found}
        return sorted(found, key=lambda p: (draws[p.pair_id] < start, draws[p.pair_id]))

    def get(self, pair_ids: Sequence[str]) -> list[LabelledPair]:
        every = {p.pair_id: p for pairs in self.by_range.values() for p in pairs}
        return [every[pair_id] for pair_id in pair_ids]

    def repeats(self, ranges: Iterable[Range]) -> int:
        return 0


def alike(queries: Sequence[str]) -> NDArray[np.float32]:
    """Equal vectors."""
    return np.ones((len(queries), 1), dtype=np.float32)


def owner_of(doc_id: str) -> str:
    """``tenant:name`` is a document of that tenant."""
    return doc_id.partition(":")[0] if ":" in doc_id else ""


class Texts:
    """A source of documents."""

    def __init__(self, missing: set[str]) -> None:
        self.missing = missing

    def known(self, doc_ids: Any) -> dict[str, str]:
        return {doc_id: owner_of(doc_id) for doc_id in {*doc_ids} - self.missing}

    def get(self, doc_ids: Any) -> dict[str, Document]:
        return {
            doc_id: Document(
                doc_id=doc_id,
                title=f"title {doc_id}",
                text=f"text {doc_id}",
                tenant=owner_of(doc_id) or None,
            )
            for doc_id in doc_ids
            if doc_id not in self.missing
        }


def made(count: int, start: int = 0, **changes: Any) -> list[LabelledPair]:
    factory = World(Settings(), published=start)
    pairs: list[LabelledPair] = []
    while len(pairs) < count:
        pair = factory.pair(**changes)
        if not is_held_out(pair.query):
            pairs.append(pair)
    return pairs


def choose(
    new: list[LabelledPair],
    earlier: list[LabelledPair],
    missing: set[str] | None = None,
    cap_run: int = ORDINARY_RUN,
    **changes: Any,
) -> Selection:
    own = Selector.__dataclass_fields__.keys()
    rules = {name: value for name, value in changes.items() if name not in own}
    values = {"parent": 1, "seed": 0, "encode": unlike} | {
        n: v for n, v in changes.items() if n in own
    }
    chosen_by = rules_of(Settings(**{"train_replay": 0.5} | rules))
    caps = chosen_by.caps.model_copy(update={"run": cap_run})
    selector = Selector(
        Pairs(new, earlier, values.get("variant", "reweight")),
        Texts(missing or set()),
        chosen_by.model_copy(update={"caps": caps}),
        **values,
    )
    chosen = selector.select([NEW], [EARLIER])
    assert chosen.left_out.keys() <= set(REASONS)
    return chosen


def test_a_replay_joins_the_new_pairs() -> None:
    new, earlier = made(10), made(20, start=1000)
    chosen = choose(new, earlier)
    assert chosen.pair_ids == tuple(sorted(p.pair_id for p in new))
    assert len(chosen.replayed) == 5
    assert set(chosen.replayed) < {p.pair_id for p in earlier}
    assert {e.pair_id for e in chosen.examples} == {*chosen.pair_ids, *chosen.replayed}
    assert chosen == choose(new[::-1], earlier[::-1])
    assert chosen.replayed != choose(new, earlier, seed=1).replayed


def test_the_encoder_reads_title_and_text() -> None:
    chosen = choose(made(1), [])
    [example] = chosen.examples
    assert example.positive_text == f"title {example.positive_id}\ntext {example.positive_id}"


def test_a_positive_without_text_is_left_out_of_examples_and_intensity() -> None:
    kept = made(1, positive="known", negatives=("0",), reasoning_tokens=10)
    lost = made(1, start=500, positive="gone", negatives=("0",), reasoning_tokens=1000)
    chosen = choose([*kept, *lost], [], missing={"gone"})
    assert chosen.pair_ids == (kept[0].pair_id,)
    assert chosen.left_out == {"no text": 1}
    assert chosen.intensity.overall is not None
    assert chosen.intensity.overall.beta == 10


def test_pairs_above_the_limit_are_sampled_and_counted() -> None:
    new, earlier = made(40), made(40, start=1000)
    chosen = choose(new, earlier, train_max_pairs=8)
    assert len(chosen.pair_ids) == 8
    assert len(chosen.replayed) == 2
    assert chosen.left_out == {OVER: 32}


def test_an_outcome_policy_drops_and_weights_new_and_replayed_pairs() -> None:
    factors = {"correct": 1.0, "incorrect": 0.5, "unknown": 1.0}
    new = [*made(6), *made(2, 100, outcome="incorrect"), *made(3, 200, outcome="unknown")]
    earlier = [*made(2, 1000, outcome="incorrect"), *made(3, 2000)]
    plain = choose(new, earlier)
    weighed = choose(new, earlier, train_outcome_policy="weight")
    assert (weighed.pair_ids, weighed.replayed) == (plain.pair_ids, plain.replayed)
    assert weighed.intensity == plain.intensity
    outcomes = {pair.pair_id: pair.outcome for pair in [*new, *earlier]}
    assert {outcomes[pair_id] for pair_id in weighed.replayed} == {"correct", "incorrect"}
    for example, full in zip(weighed.examples, plain.examples, strict=True):
        assert example.weight == full.weight * factors[outcomes[example.pair_id]]

    correct = choose(new, earlier, train_outcome_policy="correct_only")
    assert correct.left_out == {"outcome": 5}
    assert correct.pair_ids == tuple(sorted(pair.pair_id for pair in new[:6]))
    assert set(correct.replayed) == {pair.pair_id for pair in earlier[2:]}


def test_a_reported_outcome_overrides_the_one_of_the_pair() -> None:
    new = [*made(4), *made(3, 100, outcome="incorrect")]
    late = {new[0].trajectory_id: "incorrect", new[6].trajectory_id: "correct"}
    chosen = choose(
        new,
        [],
        train_outcome_policy="correct_only",
        outcome_of=lambda pair: late.get(pair.trajectory_id) or pair.outcome,
    )
    assert chosen.left_out == {"outcome": 3}
    assert chosen.pair_ids == tuple(sorted(pair.pair_id for pair in [*new[1:4], new[6]]))


def test_the_naive_variant_takes_every_browsed_document_with_weight_one() -> None:
    relevant = [*made(8, reasoning_tokens=10), *made(8, 50, reasoning_tokens=100)]
    irrelevant = made(6, 100, verdict="irrelevant")
    every = [*relevant, *irrelevant]
    reweight = choose(every, made(8, 1000))
    assert reweight.pair_ids == tuple(sorted(pair.pair_id for pair in relevant))
    assert reweight.left_out == {"irrelevant": 6}
    assert len({example.weight for example in reweight.examples}) > 2

    filtered = choose(every, made(8, 1000), variant="filter")
    assert (filtered.pair_ids, filtered.replayed) == (reweight.pair_ids, reweight.replayed)
    assert {example.weight for example in filtered.examples} == {1.0}

    naive = choose(every, made(20, 1000, verdict="irrelevant"), variant="naive")
    assert naive.pair_ids == tuple(sorted(pair.pair_id for pair in every))
    assert len(naive.replayed) == 11
    assert naive.left_out == {}
    assert {example.weight for example in naive.examples} == {1.0}


def test_caps_apply_to_new_and_replayed_pairs_and_are_counted() -> None:
    loud = made(60, positive="loud", negatives=("0",), tenant="loud")
    earlier_loud = made(60, 1000, positive="loud", negatives=("0",), tenant="loud")
    quiet, earlier_quiet = made(20, 200), made(20, 1200)
    chosen = choose(
        [*loud, *quiet],
        [*earlier_loud, *earlier_quiet],
        cap_run=1,
        train_cap_document=1.0,
        train_cap_tenant=0.5,
        train_replay=1.0,
    )
    assert chosen.left_out == {"tenant cap": 40}
    of_loud = {pair.pair_id for pair in loud} & set(chosen.pair_ids)
    assert len(of_loud) == 20 == len(chosen.pair_ids) - len(of_loud)
    replayed_loud = {pair.pair_id for pair in earlier_loud} & set(chosen.replayed)
    assert 0 < len(replayed_loud) == len(chosen.replayed) - len(replayed_loud)


def test_the_default_caps_drop_nothing_from_small_corpora_and_runs() -> None:
    assert choose(made(200), []).left_out == {}
    assert choose(made(20, query="one query", positive="1", negatives=("0",)), []).left_out == {}


def test_a_pushed_document_cannot_fill_a_small_run() -> None:
    honest = [pair for n in range(55) for pair in made(2, 10 * n, positive=f"honest {n}")]
    lies = made(24, 1000, positive="pushed", reasoning_tokens=5000)
    chosen = choose([*honest, *lies], [])
    assert chosen.left_out == {"document cap": 18}
    assert sum(example.positive_id == "pushed" for example in chosen.examples) == 6


def test_caps_count_only_trainable_pairs() -> None:
    gone = made(30, positive="gone", negatives=("0",), tenant="other")
    chosen = choose(
        [*gone, *made(30, 100)],
        [],
        missing={"gone"},
        cap_run=1,
        train_cap_document=1.0,
        train_cap_tenant=0.5,
    )
    assert chosen.left_out == {"no text": 30}


def test_a_pair_trains_on_documents_that_its_tenant_may_see() -> None:
    own = made(1, tenant="a", positive="a:1", negatives=("b:1", "0", "a:2"))
    shared = made(1, start=100, tenant="a", positive="1", negatives=("b:1", "2"))
    theirs = made(1, start=200, tenant="a", positive="b:1", negatives=("0",))
    nobodys = made(1, start=300, tenant="", positive="a:1", negatives=("0",))

    chosen = choose([*own, *shared, *theirs, *nobodys], [])

    assert chosen.left_out == {"other tenant": 2}
    found = {e.pair_id: e for e in chosen.examples}
    assert found.keys() == {own[0].pair_id, shared[0].pair_id}
    assert [d for d, _ in found[own[0].pair_id].negatives] == ["0", "a:2"]
    assert found[own[0].pair_id].private == {"a:1", "a:2"}
    assert [d for d, _ in found[shared[0].pair_id].negatives] == ["2"]
    assert {e.tenant for e in chosen.examples} == {"a"}
    assert all("b:" not in text for e in chosen.examples for _, text in e.negatives)


def test_a_replayed_pair_is_limited_too() -> None:
    new = made(4, tenant="a", positive="a:1", negatives=())
    earlier = made(4, start=1000, tenant="a", positive="b:1", negatives=())
    assert choose(new, earlier).replayed == ()


def test_without_documents_of_tenants_examples_name_none() -> None:
    assert {e.tenant for e in choose(made(3, tenant="a"), []).examples} == {""}


def reworded(count: int, **changes: Any) -> list[LabelledPair]:
    """Relevant pairs whose agents asked two other queries before."""
    queries = [q for n in range(9 * count) if not is_held_out(q := f"query {n}")]
    return [
        labelled(
            n,
            **{
                "query": queries[3 * n],
                "earlier_queries": tuple(queries[3 * n + 1 : 3 * n + 3]),
                "tenant": "",
                "reasoning_tokens": 10 + n,
            }
            | changes,
        )
        for n in range(count)
    ]


def test_earlier_queries_train_with_half_of_the_weight() -> None:
    new = reworded(4)
    chosen = choose(new, [], encode=alike)
    assert chosen.earlier == 4
    assert chosen.pair_ids == tuple(sorted(pair.pair_id for pair in new))
    by_id = {example.pair_id: example for example in chosen.examples}
    asked = {pair.pair_id: pair.earlier_queries for pair in new}
    made = [example for example in chosen.examples if example.found_by]
    assert len(made) == 4
    for example in made:
        of = by_id[example.found_by]
        assert example.query in asked[of.pair_id]
        assert example.positive_text == of.positive_text
        assert example.weight == of.weight / 2
    without = choose(new, [], encode=alike, train_earlier_queries=False)
    assert without.examples == tuple(e for e in chosen.examples if not e.found_by)


def test_earlier_queries_train_only_where_the_answer_was_correct() -> None:
    for outcome in ("incorrect", "unknown"):
        assert choose(reworded(3, outcome=outcome), [], encode=alike).earlier == 0


def test_earlier_queries_are_not_replayed() -> None:
    chosen = choose(made(4), reworded(4), encode=alike)
    assert (len(chosen.replayed), chosen.earlier) == (2, 0)


def test_the_selection_of_earlier_queries_does_not_depend_on_the_order_of_pairs() -> None:
    new = reworded(9)
    assert choose(new, [], encode=alike) == choose(new[::-1], [], encode=alike)


def test_the_caps_limit_what_one_document_gives_to_earlier_queries() -> None:
    asked = tuple(f"asked {n}" for n in range(60))
    pushed = reworded(3, positive="pushed", earlier_queries=asked)
    chosen = choose([*reworded(40)[3:], *pushed], [], encode=alike)
    of_pushed = [e for e in chosen.examples if e.found_by and e.positive_id == "pushed"]
    # Three times as many as the others have.
    assert 0 < len(of_pushed) <= 6


def test_without_earlier_queries_no_query_is_encoded() -> None:
    def fail(queries: Sequence[str]) -> NDArray[np.float32]:
        raise AssertionError(queries)

    assert choose(made(3), [], encode=fail).earlier == 0
    assert choose(reworded(3), [], encode=fail, train_earlier_queries=False).earlier == 0
