"""What agents did gives the same pairs, whichever format it was logged in."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import Agent, Answer, Browse, End, Event, Hit, Other, Reasoning, Search
from tests.streams.importing.exports import anthropic, atif, openai
from tests.streams.importing.logs import HELPED, REJECTED, mined, written

DOCS = [*"abcdefg", "https://example.org/x", "a:1", "DocID"]
THOUGHTS = [HELPED, REJECTED, "No useful information here.", "Now find the director."]

searches = st.tuples(
    st.just("search"),
    st.sampled_from(["lamp year", "lamp", "who lit it?", '"lamp" AND year', "[lamp]"]),
    st.lists(st.sampled_from(DOCS), max_size=6, unique=True),
)
browses = st.tuples(st.just("browse"), st.sampled_from(DOCS), st.sampled_from([None, *THOUGHTS]))
others = st.sampled_from([("reasoning", THOUGHTS[3]), ("other", "python")])


@st.composite
def streams(draw):
    """Events of one trajectory, as a client publishes them.

    The answer is at the end: what an agent says before it goes on to act is a thought in these
    formats, which have no other place for it.
    """
    events: list[Event] = []

    def add(kind, **fields):
        if kind is Reasoning and events and isinstance(events[-1], Reasoning):
            return  # A log cannot tell where one thought ends and the next begins.
        events.append(
            kind(
                event_id=str(len(events)),
                trajectory_id="t",
                seq=len(events),
                occurred_at=datetime(2026, 11, 1, tzinfo=UTC),
                agent=Agent(name="a", model="m"),
                **fields,
            )
        )

    for step in draw(st.lists(searches | browses | others, max_size=25)):
        match step:
            case "search", query, found:
                hits = tuple(Hit(doc_id=doc, rank=rank) for rank, doc in enumerate(found, 1))
                add(Search, query=query, hits=hits)
            case "browse", doc, thought:
                add(Browse, doc_id=doc)
                if thought is not None:
                    add(Reasoning, text=thought, about=doc)
            case "reasoning", text:
                about = events[-1].doc_id if events and isinstance(events[-1], Browse) else None
                add(Reasoning, text=text, about=about)
            case "other", name:
                add(Other, name=name)
    add(Answer, text="done")
    add(End, outcome="unknown")
    return events


@pytest.mark.parametrize("export", [openai, anthropic, atif])
@pytest.mark.parametrize("judge", ["local", "none"])
@settings(max_examples=60, deadline=None)
@given(events=streams())
def test_an_exported_stream_gives_the_same_pairs(export, judge, events):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stream = folder / "events.jsonl"
        stream.write_bytes(b"\n".join(event.to_json() for event in events))
        log = written(folder, export(events))
        assert mined(log, judge=judge, format=export.__name__) == mined(stream, judge=judge)
