"""The lexical judge: what counts as a clear negative statement about the document."""

import asyncio
from pathlib import Path

import pytest

from streams.local_judge import LocalJudge, sentences, verdict_of

REASONINGS = Path(__file__).parent / "reasonings"

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


def test_the_judge_is_the_rules_with_a_version():
    judge = LocalJudge()
    assert asyncio.run(judge.judge("This document is not relevant.")) == "irrelevant"
    assert judge.name == "local"
    assert judge.version


def test_quotations_and_contractions_are_taken_out_first():
    assert sentences("It doesn’t say “not relevant”.\nIt can't.") == [
        "it does not say quote .",
        "it cannot.",
    ]


def test_a_long_text_takes_no_time():
    assert verdict_of("That is what the document says about it. " * 20_000) == "relevant"
    assert verdict_of("a" * 1_000_000) == "relevant"
    assert verdict_of("not " * 250_000) == "relevant"


@pytest.mark.parametrize(
    ("part", "irrelevant", "relevant"), [("tuning", 0.98, 0.98), ("unseen", 0.85, 0.95)]
)
def test_labelled_reasonings_are_read_as_a_person_reads_them(part, irrelevant, relevant):
    """Each line of the files is ``-`` or ``+`` and a text; ``unseen`` was not looked at while the
    rules were written, so it is what to expect on other texts.
    """
    right = {"-": [], "+": []}
    for line in (REASONINGS / f"{part}.txt").read_text().splitlines():
        label, text = line[0], line[2:]
        right[label].append((verdict_of(text) == "irrelevant") == (label == "-"))
    assert len(right["-"]) >= 30
    assert len(right["+"]) >= 30
    assert sum(right["-"]) / len(right["-"]) >= irrelevant
    assert sum(right["+"]) / len(right["+"]) >= relevant
