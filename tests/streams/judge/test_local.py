"""The local judge: what counts as a clear negative statement about the document."""

import asyncio
import json
import time

import pytest

from benchmarks.labelled import labelled
from streams.judge.features import SENTENCES_READ, features, sentences
from streams.judge.local import WEIGHTS_FILE, LocalJudge, score, verdict_of, weights

IRRELEVANT = [
    "So asyncio.Task.cancel is about raising exceptions. This does not help: I want a semaphore.",
    "So asyncio.locks.Barrier is about waking up. Nothing here helps with the event loop.",
    "This document is not relevant to the question.",
    "That page is irrelevant. Let's search for another source.",
    "Not relevant. Search again.",
    "The article is unrelated to the film we need.",
    "The document doesn't mention the director at all.",
    "That document does not directly answer. Let's search again for a more precise phrase.",
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
    "That page only mentions the vaccination campaign. No details about the mandatory period.",
]

RELEVANT = [
    "This is exactly what I was looking for: the internal flag of a lock.",
    "Great. The text includes the information that we need.",
    "The doc clearly states that the settlement was $2 million.",
    "We have the content for him. Let's verify details: he was born in 1922.",
    "Thus the answer: $2 million. But let's double-check with another source.",
    "Although it does not name her, it does mention the film.",
    "Let's search for the second part of the question.",
    "We need to find the director. Let's search for the film's title.",
    'The question asks "which of these is not relevant"; the document lists all four.',
    "According to the document the label's first release was in 1994. Search for the artist.",
    "Maybe the wrong person was blamed. We should look for the trial.",
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


def test_sentences_are_told_apart_and_quotations_taken_out():
    assert sentences('It doesn’t say “not relevant”.\n\nSo no. Born 1.5 km "off"!\n') == [
        "it doesn't say  quoted .",
        "so no",
        "born 1.5 km  quoted !",
    ]


def test_only_the_first_sentences_are_read():
    assert sentences("One. " * 100) == ["one"] * SENTENCES_READ


def test_words_become_classes_so_that_phrases_are_known_with_any_noun():
    page, article = (
        features("The page doesn't mention Riga."),
        features("The doc never describes Oslo."),
    )
    assert {"A|DOC", "A|NOT", "A|DOC NOT"} <= page.keys() & article.keys()


def test_a_plan_is_no_statement_about_the_document():
    assert all(name.startswith("P|") for name in features("Let's search for the irrelevant page."))


def test_what_could_not_be_done_is_no_plan():
    assert "A|CANNOT SEARCH" in features("I couldn't open the page.")


@pytest.mark.parametrize("part", ["voices", "held-out-1"])
def test_the_tables_add_up_to_the_features(part):
    """What is looked up once for each word and pair is what the weights of the features say."""
    shipped = json.loads(WEIGHTS_FILE.read_text(encoding="utf-8"))
    for text in labelled(part):
        slowly = shipped[""] + sum(shipped.get(n, 0.0) * v for n, v in features(text.text).items())
        assert score(text.text, weights()) == pytest.approx(slowly)


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


@pytest.mark.parametrize(
    ("part", "irrelevant", "relevant"),
    [
        ("tuning", 0.98, 0.98),
        ("voices", 0.98, 0.98),
        ("held-out-2", 0.78, 0.88),
        ("held-out-3", 0.91, 0.91),
    ],
)
def test_labelled_reasonings_are_read_as_a_person_reads_them(part, irrelevant, relevant):
    """No weight was fitted to the held-out ones: they are what to expect of other texts."""
    right = {True: [], False: []}
    for text in labelled(part):
        right[text.irrelevant].append((verdict_of(text.text) == "irrelevant") == text.irrelevant)
    assert len(right[True]) >= 30
    assert len(right[False]) >= 30
    assert sum(right[True]) / len(right[True]) >= irrelevant
    assert sum(right[False]) / len(right[False]) >= relevant
