"""What a judged event carries, for every way that a verdict can come about."""

import asyncio
import json

import pytest

from schemas.events import Verdict
from schemas.judged import adapter
from schemas.settings import Settings
from streams.events import encode, read_published
from streams.judge.judgement import judge_named, located, question
from tests.streams.trajectories import judge_event

ENVELOPE = {
    "event_id": "e",
    "trajectory_id": "t",
    "seq": 3,
    "occurred_at": "2026-11-01T00:00:00Z",
    "agent": {"name": "scout", "model": "model-7b"},
    "schema_version": "1.0",
}


class Strict:
    """Answers with one verdict and remembers what it was asked."""

    name = "strict"
    version = "3"

    def __init__(self, verdict: Verdict = "irrelevant", at_once: bool = False) -> None:
        self.answer = verdict
        self.at_once = at_once
        self.asked: list[str] = []

    def verdict(self, text: str) -> Verdict | None:
        if not self.at_once:
            return None
        self.asked.append(text)
        return self.answer

    async def judge(self, text: str) -> Verdict:
        assert not self.at_once
        self.asked.append(text)
        return self.answer

    async def aclose(self) -> None: ...


def event(**fields):
    return ENVELOPE | fields


def reasoning(**fields):
    return event(type="reasoning", **fields)


def published(fields):
    return read_published(json.dumps(fields).encode())[0]


def at_source(fields, time=1_700_000_000_000):
    return located(published(fields), "log", 2, 41, time, skipped_from=40)


def write(fields, judge):
    """The judged event as its reader gets it."""
    found = asyncio.run(judge_event(at_source(fields), judge))
    return adapter.validate_json(encode(found))


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "search", "query": "né", "hits": [{"doc_id": "d", "rank": 1, "score": 0.5}]},
        {"type": "search", "query": "q", "hits": [], "retriever_version": 2, "tenant": "acme"},
        {"type": "browse", "doc_id": "d"},
        {"type": "end", "outcome": "correct"},
        {"type": "other", "name": "think"},
    ],
)
def test_other_events_go_on_as_published_with_their_source(fields):
    found = write(event(**fields), Strict())
    assert json.loads(found.to_json()) == {"tenant": ""} | event(**fields) | {
        "source_topic_id": "log",
        "source_partition": 2,
        "source_offset": 41,
        "source_time": 1_700_000_000_000,
        "skipped_from": 40,
    }


def test_a_record_without_an_append_time_has_source_time_0():
    found = asyncio.run(judge_event(at_source(event(type="end"), time=-1), None))
    assert adapter.validate_json(encode(found)).source_time == 0


def test_a_field_that_the_contract_lacks_stays_behind():
    newer = event(type="other", name="think", mood="calm") | {"schema_version": "1.9"}
    assert b"mood" not in encode(asyncio.run(judge_event(at_source(newer), None)))


@pytest.mark.parametrize("judge", ["local", "none"])
def test_the_settings_name_the_judge(judge):
    found = judge_named(Settings(judge=judge))
    assert getattr(found, "name", "none") == judge


def test_the_local_judge_answers_at_once():
    local, text = judge_named(Settings(judge="local")), "This document is irrelevant."
    assert local.verdict(text) == asyncio.run(local.judge(text)) == "irrelevant"


def test_texts_stay_behind():
    secret = "the secret of the task"
    for fields in (reasoning(text=secret, about="d"), event(type="answer", text=secret)):
        assert b"secret" not in write(fields, Strict()).to_json()


@pytest.mark.parametrize("at_once", [False, True])
def test_a_reasoning_about_a_browse_is_judged_and_measured(at_once):
    judge = Strict(at_once=at_once)
    found = write(reasoning(text="It doesn't help.", about="d"), judge)
    assert judge.asked == ["It doesn't help."]
    assert (found.verdict, found.judge, found.judge_version) == ("irrelevant", "strict", "3")
    assert (found.tokens, found.about) == (6, "d")


def test_a_reasoning_about_the_browse_right_before_it_is_judged_without_its_document():
    judge = Strict()
    found = write(reasoning(text="It doesn't help.", about_previous=True), judge)
    assert judge.asked == ["It doesn't help."]
    assert (found.verdict, found.tokens) == ("irrelevant", 6)
    assert (found.about, found.about_previous) == (None, True)


def test_a_reasoning_about_nothing_is_not_judged():
    judge = Strict()
    found = write(reasoning(text="Let me search.", tokens=9, verdict="relevant"), judge)
    assert not judge.asked
    assert (found.verdict, found.judge, found.tokens) == (None, None, None)


def test_tokens_of_the_event_win():
    assert write(reasoning(text="one two", tokens=900, about="d"), Strict()).tokens == 900


@pytest.mark.parametrize("judge", [Strict(), None])
def test_the_verdict_of_the_event_wins_and_nothing_is_asked(judge):
    found = write(reasoning(text="no use", verdict="relevant", about="d"), judge)
    assert judge is None or not judge.asked
    assert (found.verdict, found.judge, found.judge_version) == ("relevant", "agent", "model-7b")


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, None),
        ({"text": None}, None),
        ({"text": ""}, 0),
        ({"text": " \n\t"}, 0),
        ({"tokens": 5, "verdict": None}, 5),
    ],
)
def test_without_text_and_verdict_it_is_unknown(fields, tokens):
    judge = Strict()
    found = write(reasoning(**fields, about="d"), judge)
    assert not judge.asked
    assert (found.verdict, found.judge, found.tokens) == ("unknown", "strict", tokens)


def test_under_judge_none_the_verdict_is_on_the_browse():
    browse = write(event(type="browse", doc_id="d"), None)
    thought = write(reasoning(text="It doesn't help.", about="d"), None)
    assert (browse.verdict, browse.judge, browse.judge_version) == ("relevant", "none", "1")
    assert (thought.verdict, thought.judge, thought.tokens) == (None, None, 6)


def test_a_question_is_asked_only_where_an_answer_counts():
    assert question(published(reasoning(text="why", about="d"))) == "why"
    assert question(published(reasoning(text="why"))) is None
    assert question(published(reasoning(text="why", about="d", verdict="relevant"))) is None
    assert question(published(event(type="browse", doc_id="d"))) is None
