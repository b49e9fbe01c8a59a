"""The local judge: what counts as a clear negative statement about the document."""

import asyncio
import json
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from benchmarks import train_judge
from benchmarks.judge import HELD_OUT
from benchmarks.labelled import FOLDER, composed, labelled
from benchmarks.train_judge import features
from streams.judge.local import (
    SENTENCES_READ,
    WEIGHTS_FILE,
    LocalJudge,
    plain_text,
    read,
    score,
    sentences,
    verdict_of,
    weights,
)

LRAT = Path(__file__).parents[4] / "shared" / "data" / "trajectories" / "lrat"

IRRELEVANT = [
    "So asyncio.Task.cancel is about raising exceptions. This does not help: I want a semaphore.",
    "So asyncio.locks.Barrier is about waking up. Nothing here helps with the event loop.",
    "This document is not relevant to the question.",
    "That page is irrelevant. Let's search for another source.",
    "Not relevant. Search again.",
    "The article is unrelated to the film we need.",
    "The document doesn't mention the director at all.",
    "It does not contain the birth year. Let's try another.",
    "There is no information about the founder here.",
    "No useful information. Let me open another document.",
    "This is off-topic.",
    "Wrong document. We need the 2004 film.",
    "This is the wrong person; he was a footballer, not a painter.",
    "The page could not be opened. Try another one.",
    "I couldn't open the page.",
    "The document failed to load.",
    "404 Not Found. Let's try the other docid.",
    "The page is empty.",
    "Document not found.",
    "It mentions the film, but does not say who directed it.",
    "It only touches on the campaign. No details about the second vote.",
]

RELEVANT = [
    "This is exactly what I was looking for: the internal flag of a lock.",
    "Great. The text includes the information that we need.",
    "The doc clearly states that the fine was 300 crowns.",
    "We have the content for him. Let's verify details: he was born in 1922.",
    "Thus the answer: $2 million. But let's double-check with another source.",
    "Although it does not name her, it does mention the film.",
    "Let's search for the second part of the question.",
    "We need to find the director. Let's search for the film's title.",
    'The question asks "which of these is not relevant"; the document lists all four.',
    "According to the document the label's first release was in 1994. Search for the artist.",
    "Maybe the wrong person was blamed. We should look for the trial.",
    "Let's search for the irrelevant page.",
]


@pytest.mark.parametrize("text", IRRELEVANT)
def test_clear_negative_statements_about_the_document(text):
    assert verdict_of(text) == "irrelevant"


@pytest.mark.parametrize("text", RELEVANT)
def test_all_else_is_relevant(text):
    assert verdict_of(text) == "relevant"


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_nothing_is_unknown(text):
    assert verdict_of(text) == "unknown"


def test_the_judge_has_a_version():
    judge = LocalJudge()
    assert asyncio.run(judge.judge("This document is not relevant.")) == "irrelevant"
    assert judge.name == "local"
    assert judge.version


def test_sentences_are_split_and_quotations_replaced():
    plain = plain_text('It doesn’t say “not relevant”.\n\nSo no. Born 1.5 km "off" «là»!\n')
    assert sentences(plain) == [
        "it doesn't say  quoted .",
        "so no",
        "born 1.5 km  quoted   quoted !",
    ]


def test_only_the_first_sentences_are_read():
    assert sentences("one. " * 100) == ["one"] * SENTENCES_READ


def test_words_become_classes_so_that_phrases_are_known_with_any_noun():
    page, article = (
        features("The page doesn't mention Riga."),
        features("The doc never describes Oslo."),
    )
    assert {"A|DOC", "A|NOT", "A|DOC NOT"} <= page & article


def test_features_count_again_by_where_they_stand():
    found = features("The page is empty. Let's search for a doc. So it's done.")
    assert {"DOC", "A|DOC", "P|DOC", "E|CONF"} <= found
    assert not {"E|DOC", "A|CONF", "P|CONF"} & found


def test_the_only_sentence_is_the_first_one():
    assert not [name for name in features("It is empty.") if name.startswith(("E|", "P|"))]


def test_what_could_not_be_done_is_no_plan():
    found = features("I couldn't open the page.")
    assert "A|CANNOT SEARCH" in found
    assert "P|CANNOT SEARCH" not in found


@pytest.mark.parametrize("part", ["voices", "held-out-1"])
def test_the_score_is_the_sum_of_the_weights_of_the_features(part):
    shipped = json.loads(WEIGHTS_FILE.read_text(encoding="utf-8"))
    for text in labelled(part):
        slowly = shipped[""] + sum(shipped.get(name, 0.0) for name in features(text.text))
        assert score(read(plain_text(text.text)), weights()) == pytest.approx(slowly)


def test_the_weights_are_one_line():
    assert WEIGHTS_FILE.read_text(encoding="utf-8").count("\n") == 1
    assert WEIGHTS_FILE.stat().st_size < 150_000


@pytest.mark.parametrize(
    "text",
    [
        "That is what the document says about it. " * 20_000,
        "a" * 1_000_000,
        "not " * 250_000,
        "so, " * 250_000,
        '"' * 1_000_000,
        "“" * 1_000_000,
        "\n" * 1_000_000,
        "... " * 250_000,
    ],
)
def test_hostile_text_takes_no_time(text):
    began = time.monotonic()
    verdict_of(text)
    assert time.monotonic() - began < 5


def shares(texts):
    """Of the irrelevant and of the relevant texts, those judged so; of all, those unknown."""
    verdicts = [(text.irrelevant, verdict_of(text.text)) for text in texts]
    labels = Counter(irrelevant for irrelevant, _ in verdicts)
    assert min(labels[True], labels[False]) >= 30
    return (
        sum(found == (True, "irrelevant") for found in verdicts) / labels[True],
        sum(found == (False, "relevant") for found in verdicts) / labels[False],
        sum(verdict == "unknown" for _, verdict in verdicts) / len(verdicts),
    )


@pytest.mark.parametrize(
    ("part", "irrelevant", "relevant"),
    [
        ("tuning", 0.98, 0.98),
        ("voices", 0.98, 0.98),
        ("held-out-2", 0.78, 0.92),
        ("held-out-3", 0.94, 0.91),
        ("held-out-4", 0.97, 0.95),
        ("contrasts", 0.85, 0.92),
    ],
)
def test_labelled_reasonings_are_read_as_a_person_reads_them(part, irrelevant, relevant):
    """No weight was fitted to the held-out ones: they are what to expect of other texts."""
    right = shares(labelled(part))
    assert right[0] >= irrelevant
    assert right[1] >= relevant
    assert right[2] == 0


def test_the_goal_is_reached_on_texts_in_eight_styles_that_no_weight_was_fitted_to():
    held_out = labelled("held-out-4")
    assert len(held_out) >= 200
    assert len({text.source for text in held_out}) == 8
    irrelevant, relevant, unknown = shares(held_out)
    assert irrelevant >= 0.95
    assert relevant >= 0.95
    assert unknown <= 0.05


def test_no_held_out_text_is_in_the_fit():
    fitted = {text.text for part in train_judge.PARTS for text in labelled(part)}
    fitted |= {text.text for text in composed(train_judge.COMPOSED)}
    held_out = [text.text for part in HELD_OUT for text in labelled(part)]
    assert not fitted & set(held_out)
    assert len(set(held_out)) == len(held_out)


def test_composed_texts_are_the_same_each_time():
    assert composed(1) == composed(1)
    assert {text.irrelevant for text in composed(1)} == {True, False}


@pytest.mark.skipif(not LRAT.exists(), reason="needs ../shared/data")
def test_reasonings_of_a_deep_research_agent():
    """What Tongyi-DeepResearch wrote right after it opened a document; no text of it is fitted."""
    irrelevant = {("0.json", 1), ("10.json", 0), ("15.json", 2)}
    found = {}
    for file in sorted(LRAT.glob("*.json")):
        steps = json.loads(file.read_text())["result"]
        after = [
            thought["output"]
            for browse, thought in pairwise(steps)
            if browse.get("tool_name") in ("get_document", "visit")
            and thought["type"] == "reasoning"
        ]
        found |= {(file.name, number): text for number, text in enumerate(after)}
    assert len(found) == 14
    wrong = [
        key
        for key, text in found.items()
        if verdict_of("".join(text)) != ("irrelevant" if key in irrelevant else "relevant")
    ]
    assert len(wrong) <= 1, wrong


ENGLISH = "English with code, names and quotations"


@pytest.mark.parametrize(
    "language",
    [
        *("German", "French", "Spanish", "Italian", "Dutch", "Swedish", "Turkish", "Indonesian"),
        *("Chinese", "Japanese", "Korean", "Russian", "Arabic", "Hindi"),
    ],
)
@pytest.mark.parametrize("irrelevant", [True, False])
def test_another_language_is_unknown(language, irrelevant):
    texts = [t for t in labelled("languages") if t.source == language]
    texts = [t for t in texts if t.irrelevant == irrelevant]
    assert texts
    assert {verdict_of(text.text) for text in texts} == {"unknown"}


def test_english_stays_judged_with_code_names_and_quotations():
    texts = [t for t in labelled("languages") if t.source == ENGLISH]
    assert len(texts) >= 20
    verdicts = [(verdict_of(text.text), text.irrelevant) for text in texts]
    assert not [verdict for verdict, _ in verdicts if verdict == "unknown"]
    assert sum((v == "irrelevant") == label for v, label in verdicts) >= 0.85 * len(texts)


def test_no_english_text_is_taken_for_another_language():
    """Each file of labelled texts but the one of other languages."""
    parts = {file.stem for file in (*FOLDER.glob("*.txt"), *FOLDER.glob("*.jsonl"))}
    texts = [text.text for part in parts - {"languages"} for text in labelled(part)]
    assert len(texts) > 4_000
    assert not [text for text in texts if verdict_of(text) == "unknown"]


@pytest.mark.parametrize(
    ("text", "reason"), [("Das Dokument hilft nicht.", "language"), (" \n", "empty")]
)
def test_an_unknown_verdict_is_counted_with_its_reason(text, reason):
    def count():
        return REGISTRY.get_sample_value("retrail_judge_unknown_total", {"reason": reason}) or 0

    before = count()
    assert LocalJudge().verdict(text) == "unknown"
    assert count() == before + 1
