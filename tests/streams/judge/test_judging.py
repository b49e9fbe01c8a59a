"""What a judged event says, for every way that a verdict can come about."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import (
    Agent,
    Answer,
    Browse,
    End,
    Hit,
    InvalidEventError,
    Other,
    Reasoning,
    Search,
    Verdict,
    parse,
)
from schemas.judged import adapter
from schemas.settings import Settings
from streams.judge.judging import (
    NO_JUDGEMENT,
    NoJudge,
    answer_at_once,
    judge_event,
    judge_named,
    judged,
    judged_json,
    judgement,
    question,
)
from streams.mine.steps import decode

ENVELOPE = {
    "event_id": "e",
    "trajectory_id": "t",
    "seq": 3,
    "occurred_at": datetime(2026, 11, 1, tzinfo=UTC),
    "agent": Agent(name="scout", model="model-7b"),
}


class Strict:
    """Answers with one verdict and remembers what it was asked."""

    name = "strict"
    version = "3"

    def __init__(self, verdict: Verdict = "irrelevant") -> None:
        self.verdict = verdict
        self.asked: list[str] = []

    async def judge(self, text: str) -> Verdict:
        self.asked.append(text)
        return self.verdict

    async def aclose(self) -> None: ...


def reasoning(**fields):
    return Reasoning(**ENVELOPE, **fields)


def write(event, judge=None):
    """The judged event as its reader gets it."""
    found = asyncio.run(judge_event(event, judge or Strict(), 41, 1_700_000_000_000))
    read = adapter.validate_json(found.to_json())
    assert read == found
    return read


@pytest.mark.parametrize(
    "event",
    [
        Search(**ENVELOPE, query="q", hits=(Hit(doc_id="d", rank=1, score=0.5),)),
        Browse(**ENVELOPE, doc_id="d"),
        End(**ENVELOPE, outcome="correct"),
        Other(**ENVELOPE, name="think"),
    ],
)
def test_other_events_go_on_as_published_with_their_source(event):
    found = write(event)
    assert found.source_offset == 41
    assert found.source_time == 1_700_000_000_000
    assert found.model_dump(include=set(type(event).model_fields)) == event.model_dump()
    assert getattr(found, "verdict", None) is None


@pytest.mark.parametrize(
    "event",
    [
        Search(**ENVELOPE, query="né", hits=(Hit(doc_id="d", rank=1, score=0.5),), tenant="acme"),
        Search(**ENVELOPE, query="q", hits=(), retriever_version=2),
        Browse(**ENVELOPE, doc_id="d"),
        Reasoning(**ENVELOPE, about="d", text="It helps."),
        Answer(**ENVELOPE, text="secret"),
        End(**ENVELOPE),
        Other(**ENVELOPE, name="think"),
    ],
)
@pytest.mark.parametrize("judge", [Strict(), NoJudge()])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("spelled_out", [False, True])
def test_the_quick_way_to_the_bytes_gives_the_same_event(event, judge, indent, spelled_out):
    value = event.model_dump_json(exclude_none=not spelled_out, indent=indent).encode() + b"\n"
    found = judgement(event, judge, "relevant")
    slowly = judged(event, 41, 1_700_000_000_000, found).to_json()
    quickly = judged_json(parse(value), value, 41, 1_700_000_000_000, found)
    assert adapter.validate_json(quickly) == adapter.validate_json(slowly)
    assert decode(quickly) == decode(slowly)


def test_what_the_contract_does_not_know_stays_behind():
    value = (
        Other(**ENVELOPE, name="think", schema_version="1.9")
        .to_json()
        .replace(b'"name":', b'"mood":"calm","name":')
    )
    found = judged_json(parse(value), value, 41, 1_700_000_000_000, NO_JUDGEMENT)
    assert b"mood" not in found
    assert adapter.validate_json(found).source_offset == 41


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(
    fields=st.permutations(
        [
            *json.loads(Search(**ENVELOPE, query="q", hits=()).to_json()).items(),
            ("hits", [{"doc_id": "d", "rank": 1, "score": 0.5}]),
        ]
    ),
    more=st.lists(
        st.tuples(st.sampled_from(["query", "seq", "tenant", "occurred_at", "extra"]), _scalars),
        max_size=2,
    ),
    escaped=st.booleans(),
    gap=st.sampled_from(["", " ", "\n\t"]),
)
def test_whatever_is_accepted_is_read_alike_either_way(fields, more, escaped, gap):
    """Fields in any order, repeated, of odd values, with white space between."""
    members = [
        f"{gap}{json.dumps(name)}{gap}:{gap}{json.dumps(item, ensure_ascii=escaped)}"
        for name, item in [*fields, *more]
    ]
    value = f"{gap}{{{','.join(members)}{gap}}}{gap}".encode()
    try:
        parsed = parse(value)
    except InvalidEventError:
        return
    slowly = judged(parsed.event, 41, 7, NO_JUDGEMENT).to_json()
    quickly = judged_json(parsed, value, 41, 7, NO_JUDGEMENT)
    assert adapter.validate_json(quickly) == adapter.validate_json(slowly)
    assert decode(quickly) == decode(slowly)


def test_only_the_local_judge_answers_at_once():
    local = judge_named(Settings(judge="local"))
    text = "This document is irrelevant."
    assert answer_at_once(local, text) == asyncio.run(local.judge(text))
    assert answer_at_once(Strict(), text) is None


def test_texts_stay_behind():
    secret = "the secret of the task"
    for event in (reasoning(text=secret, about="d"), Answer(**ENVELOPE, text=secret)):
        assert b"secret" not in write(event).to_json()


def test_a_reasoning_about_a_browse_is_judged_and_measured():
    judge = Strict()
    found = write(reasoning(text="It doesn't help.", about="d"), judge)
    assert judge.asked == ["It doesn't help."]
    assert (found.verdict, found.judge, found.judge_version) == ("irrelevant", "strict", "3")
    assert (found.tokens, found.about) == (6, "d")


def test_a_reasoning_about_nothing_is_not_judged():
    judge = Strict()
    found = write(reasoning(text="Let me search.", tokens=9), judge)
    assert not judge.asked
    assert (found.verdict, found.judge, found.tokens) == (None, None, None)


def test_tokens_of_the_event_win():
    assert write(reasoning(text="one two", tokens=900, about="d")).tokens == 900


def test_the_verdict_of_the_event_wins_and_nothing_is_asked():
    judge = Strict()
    found = write(reasoning(text="no use", verdict="relevant", about="d"), judge)
    assert not judge.asked
    assert (found.verdict, found.judge, found.judge_version) == ("relevant", "agent", "model-7b")


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [({}, None), ({"text": ""}, 0), ({"text": " \n\t"}, 0), ({"tokens": 5}, 5)],
)
def test_without_text_and_verdict_it_is_unknown(fields, tokens):
    judge = Strict()
    found = write(reasoning(**fields, about="d"), judge)
    assert not judge.asked
    assert (found.verdict, found.judge, found.tokens) == ("unknown", "strict", tokens)


def test_under_judge_none_the_verdict_is_on_the_browse():
    browse = write(Browse(**ENVELOPE, doc_id="d"), NoJudge())
    thought = write(reasoning(text="It doesn't help.", about="d"), NoJudge())
    assert (browse.verdict, browse.judge) == ("relevant", "none")
    assert (thought.verdict, thought.judge, thought.tokens) == (None, None, 6)


def test_under_judge_none_an_own_verdict_stays():
    found = write(reasoning(verdict="irrelevant", about="d"), NoJudge())
    assert (found.verdict, found.judge) == ("irrelevant", "agent")


def test_the_settings_name_the_judge():
    assert judge_named(Settings(judge="local")).name == "local"
    assert judge_named(Settings(judge="none")).name == "none"


def test_a_question_is_asked_only_where_an_answer_counts():
    judge = Strict()
    assert question(reasoning(text="why", about="d"), judge) == "why"
    assert question(reasoning(text="why"), judge) is None
    assert question(reasoning(text="why", about="d"), NoJudge()) is None
    assert question(Browse(**ENVELOPE, doc_id="d"), judge) is None
