import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from schemas.events import count_tokens
from simulation import fleet, language
from simulation.corpus import Need
from simulation.language import content_words, overlap, snippet, stem, stems
from simulation.scripted import (
    MOST_SEARCHES,
    PERSONAS,
    Agent,
    Answered,
    Asked,
    Browsed,
    Ended,
    Mind,
    Step,
    Thought,
    act,
    draw,
    worth_opening,
)
from streams.judge.local import LocalJudge


@dataclass(frozen=True)
class Hit:
    doc_id: str
    rank: int
    score: float
    text: str


Search = Callable[[str], Sequence[Hit]]

TEXTS = {
    "wrap": "The text is wrapped into a list of lines, each of them at most width characters long.",
    "copy": "Both the file and its permission bits are copied; the destination may be a folder.",
    "sort": "The sort is stable: items that compare equal keep the order in which they were.",
    "hash": "The digest of the data fed to the object so far, as a string of hexadecimal digits.",
}
NEED = Need("n1", "Split one long paragraph into lines of a given width.", {"wrap": 1})


def toy_search(query: str) -> list[Hit]:
    """By shared words; every document is a hit."""
    wanted = stems(query)
    best = sorted(TEXTS, key=lambda doc_id: (-overlap(wanted, TEXTS[doc_id]), doc_id))
    return [Hit(doc_id, rank, 1.0 / rank, TEXTS[doc_id]) for rank, doc_id in enumerate(best, 1)]


def perform(agent: Agent, search: Search) -> list[Step]:
    """The steps of an agent over a search function."""
    steps: list[Step] = []
    fleet.work_in_rounds(
        [(None, agent)],
        lambda queries: [search(query) for query in queries],
        lambda _, step, hits: steps.append(step),
    )
    return steps


def trajectory(need: Need, *seed: object) -> list[Step]:
    return perform(act(need, Mind.of(*seed)), toy_search)


def many(count: int = 300) -> list[list[Step]]:
    return [trajectory(NEED, "many", number) for number in range(count)]


def test_the_same_seed_gives_the_same_trajectory_whatever_the_thread() -> None:
    alone = [trajectory(NEED, 1, number) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda number: trajectory(NEED, 1, number), range(40)))
    assert alone == together
    assert len({str(steps) for steps in alone}) > 30


def test_ids_of_trajectories_derive_from_the_seed() -> None:
    assert Mind.of(0, 1, "n", 0).trajectory_id == Mind.of(0, 1, "n", 0).trajectory_id
    assert len({Mind.of(s, t, "n", 0).trajectory_id for s in range(3) for t in range(3)}) == 9


def test_the_shape_of_a_trajectory() -> None:
    for steps in many():
        assert isinstance(steps[0], Asked)
        assert isinstance(steps[-2], Answered)
        assert isinstance(steps[-1], Ended)
        assert 1 <= sum(isinstance(step, Asked) for step in steps) <= MOST_SEARCHES
        browsed = [step.doc_id for step in steps if isinstance(step, Browsed)]
        assert len(set(browsed)) == len(browsed)
        for before, step in itertools.pairwise(steps):
            if isinstance(before, Browsed):
                assert isinstance(step, Thought)
                assert step.helps is not None
            elif isinstance(step, Thought):
                assert step.helps is None


def test_what_is_opened_does_not_depend_on_the_truth() -> None:
    other = Need(NEED.need_id, NEED.text, {"hash": 1})
    for number in range(50):
        first = [step for step in trajectory(NEED, number) if isinstance(step, Asked | Browsed)]
        second = [step for step in trajectory(other, number) if isinstance(step, Asked | Browsed)]
        assert first[:2] == second[:2]


def test_agents_err_sometimes_and_are_right_mostly() -> None:
    beliefs: Counter[tuple[bool, bool]] = Counter()
    for steps in many(1000):
        for before, step in itertools.pairwise(steps):
            if isinstance(before, Browsed) and isinstance(step, Thought):
                beliefs[before.doc_id in NEED.relevant, bool(step.helps)] += 1
    overlooked = beliefs[True, False] / (beliefs[True, False] + beliefs[True, True])
    fooled = beliefs[False, True] / (beliefs[False, True] + beliefs[False, False])
    assert 0.07 < overlooked < 0.18
    assert 0.01 < fooled < 0.06


def test_thoughts_about_what_serves_are_longer_whatever_is_believed() -> None:
    lengths: dict[tuple[bool, bool], list[int]] = {}
    for steps in many(1000):
        for before, step in itertools.pairwise(steps):
            if isinstance(before, Browsed) and isinstance(step, Thought):
                key = before.doc_id in NEED.relevant, bool(step.helps)
                lengths.setdefault(key, []).append(count_tokens(step.text))
    mean = {key: sum(found) / len(found) for key, found in lengths.items()}
    assert mean[True, True] > 1.4 * mean[False, True]
    assert mean[True, False] > 1.2 * mean[False, False]


def test_outcome_is_the_truth_about_the_answer() -> None:
    for steps in many():
        answer, end = steps[-2:]
        assert isinstance(answer, Answered)
        assert isinstance(end, Ended)
        assert (end.outcome == "correct") == answer.text.startswith("See wrap:")


def test_personas_differ_and_all_occur() -> None:
    found = Counter(Mind.of(0, number).persona for number in range(300))
    assert set(found) == set(PERSONAS)
    assert min(found.values()) > 60


def test_the_local_judge_understands_what_agents_write() -> None:
    judge = LocalJudge()

    async def agreement() -> tuple[int, int]:
        right = asked = 0
        for steps in many(400):
            for step in steps:
                if isinstance(step, Thought) and step.helps is not None:
                    verdict = await judge.judge(step.text)
                    asked += 1
                    right += verdict == ("relevant" if step.helps else "irrelevant")
        return right, asked

    right, asked = asyncio.run(agreement())
    assert asked > 400
    assert right / asked > 0.97


def test_thoughts_differ() -> None:
    """Plans between two searches quote a need that all these agents share; they may be alike."""
    of_all = [step for steps in many(200) for step in steps if isinstance(step, Thought)]
    texts = [thought.text for thought in of_all if thought.helps is not None]
    assert len(set(texts)) > 0.95 * len(texts)


def test_a_thought_is_about_as_long_as_asked() -> None:
    for tokens in (20, 60, 120):
        text = language.about_document(
            need=NEED.text,
            doc_id="wrap",
            text=TEXTS["wrap"],
            helps=True,
            tokens=tokens,
            draw=draw("length", tokens),
        )
        assert tokens <= count_tokens(text) <= tokens + 60


def test_every_template_can_be_filled() -> None:
    for template in (
        *language.HELPS,
        *language.HELPS_MORE,
        *language.HELPS_NOT,
        *language.HELPS_NOT_MORE,
        *language.PLANS,
    ):
        assert "{" not in template.format(need="a", topic="b", doc="c")


def test_worth_opening_prefers_shared_words_and_leaves_out_what_was_opened() -> None:
    hits: Sequence[Hit] = toy_search(NEED.text)
    firsts = Counter(
        worth_opening(stems(NEED.text), hits, set(), draw(number))[0].doc_id
        for number in range(100)
    )
    assert firsts.most_common(1)[0][0] == "wrap"
    for number in range(20):
        found = worth_opening(stems(NEED.text), hits, {"wrap"}, draw(number))
        assert "wrap" not in {hit.doc_id for hit in found}
        assert 1 <= len(found) <= 3


def test_an_agent_that_finds_nothing_answers_so() -> None:
    need = Need("n2", "Nothing of the kind exists", {"elsewhere": 1})
    steps = perform(act(need, Mind.of("none")), lambda _query: [])
    assert steps[-2:] == [Answered("I could not find it."), Ended("incorrect")]
    assert sum(isinstance(step, Asked) for step in steps) == MOST_SEARCHES


def test_what_search_raises_reaches_the_caller() -> None:
    def fail(_query: str) -> list[Hit]:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        perform(act(NEED, Mind.of(0)), fail)


@pytest.mark.parametrize("number", range(30))
def test_queries_are_never_empty_and_never_masked(number: int) -> None:
    need = "___ the ___ source into an AST node."
    first = language.first_query(need, draw(number))
    following = language.next_query(need, [first], ["parsed tree of nodes"], draw(number, 2))
    for query in (first, following):
        assert content_words(query)
        assert "_" not in query


def test_a_need_without_content_words_is_asked_as_it_is() -> None:
    assert language.keywords("what is it", draw(0)) == "what is it"


@pytest.mark.parametrize(
    ("word", "expected"),
    [("opening", "open"), ("opens", "open"), ("classes", "class"), ("is", "is")],
)
def test_stem(word: str, expected: str) -> None:
    assert stem(word) == expected


def test_snippet_is_where_the_words_are() -> None:
    text = "nothing here " * 40 + "the width of a line " + "nothing there " * 40
    assert "width" in snippet(stems("line width"), text)
    assert snippet(set(), "") == ""
