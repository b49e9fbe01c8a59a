"""What mining keeps of a judged event."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import Agent, Hit
from schemas.judged import JudgedBrowse, JudgedReasoning, JudgedSearch
from streams.events import read_judged
from streams.mine import steps

ENVELOPE = {
    "event_id": "e",
    "trajectory_id": "t",
    "seq": 3,
    "occurred_at": datetime(2026, 1, 1, tzinfo=UTC),
    "agent": Agent(name="a", model="m"),
    "source_topic_id": "log",
    "source_partition": 0,
    "source_offset": 9,
    "source_time": 17,
}


@pytest.mark.parametrize(
    ("event", "step"),
    [
        (
            JudgedSearch(**ENVELOPE, query="q", hits=(Hit(doc_id="a", rank=1, score=0.5),)),
            steps.SearchStep("q", ["a"]),
        ),
        (
            JudgedSearch(
                **ENVELOPE,
                query="q",
                hits=(Hit(doc_id="a", rank=12), Hit(doc_id="b", rank=11)),
                retriever_version=2,
            ),
            steps.SearchStep("q", ["b", "a"], [11, 12], 2),
        ),
        (
            JudgedBrowse(**ENVELOPE, doc_id="a", verdict="relevant", judge="none"),
            steps.BrowseStep(3, "a", "relevant", "none"),
        ),
        (
            JudgedReasoning(
                **ENVELOPE, about="a", tokens=4, verdict="unknown", judge="l", judge_version="2"
            ),
            steps.ReasoningStep("a", 4, "unknown", "l", "2"),
        ),
        (
            JudgedReasoning(**ENVELOPE, about_previous=True, verdict="relevant"),
            steps.ReasoningStep(None, None, "relevant"),
        ),
        (
            JudgedBrowse(**ENVELOPE | {"seq": None}, doc_id="a"),
            steps.BrowseStep("e", "a"),
        ),
        (JudgedReasoning(**ENVELOPE, about_previous=False), steps.BreakStep()),
        (JudgedReasoning(**ENVELOPE), steps.BreakStep()),
    ],
)
def test_a_judged_event_becomes_the_step_that_mining_reads(event, step):
    read = read_judged(event.to_json())
    assert (read.trajectory_id, read.source_offset, read.source_time) == ("t", 9, 17)
    assert steps.step_of(read) == step


@given(
    st.lists(
        st.one_of(
            st.builds(steps.SearchStep, st.text(), st.lists(st.text())),
            st.builds(steps.BrowseStep, st.integers(0, 99) | st.text(), st.text()),
            st.builds(steps.ReasoningStep, st.none() | st.text(), st.integers(0, 99)),
            st.builds(steps.BreakStep),
        )
    )
)
def test_packed_steps_are_unpacked_as_they_were(all_steps):
    packed: list[bytes] = []
    for step in all_steps:
        steps.pack(packed, step)
    assert list(steps.unpack(packed)) == all_steps
