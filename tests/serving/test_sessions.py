"""Which trajectory a request goes on with, under which id, and when it ends."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.retriever import Hit, SearchResult
from serving.sessions import HANDLE, Agent, Caller, Sessions, new_trajectory_id
from tests.serving.fakes import Remembering

ME, OTHER = Agent("me", "m"), Agent("me", "m", tenant="t")
RESULT = SearchResult([Hit("a", 1, 0.5, "", "text")], 3)


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log() -> Remembering:
    return Remembering()


@pytest.fixture
def sessions(log: Remembering, clock: Clock) -> Sessions:
    return Sessions(log, idle_seconds=60, most=3, now=clock)


@given(st.none() | st.from_regex(HANDLE, fullmatch=True))
def test_every_id_is_a_handle_again_and_does_not_grow(handle: str | None) -> None:
    random = "0123456789abcdef" * 2
    made = new_trajectory_id(handle, random)
    assert re.match(HANDLE, made)
    assert made.endswith(random)
    assert new_trajectory_id(made, random) == made


def test_a_name_and_the_id_given_for_it_mean_the_same_trajectory(sessions: Sessions) -> None:
    session = sessions.of(Caller(ME, "task-1"))
    assert session.trajectory_id.startswith("task-1.")
    assert sessions.of(Caller(ME, "task-1")) is session
    assert sessions.of(Caller(ME, session.trajectory_id)) is session
    assert len(sessions) == 1


def test_without_a_handle_each_call_begins_one(sessions: Sessions) -> None:
    assert sessions.of(Caller(ME)) is not sessions.of(Caller(ME))


def test_one_name_of_two_agents_means_two_trajectories(sessions: Sessions) -> None:
    mine = sessions.of(Caller(ME, "1"))
    assert sessions.of(Caller(OTHER, "1")) is not mine
    assert sessions.of(Caller(OTHER, mine.trajectory_id)) is mine


def test_the_session_of_a_transport_is_not_shown_and_does_not_depend_on_the_agent(
    sessions: Sessions,
) -> None:
    session = sessions.of(Caller(ME, "mcp:secret", session=True))
    assert "secret" not in session.trajectory_id
    assert sessions.of(Caller(OTHER, "mcp:secret", session=True)) is session
    assert sessions.of(Caller(ME, "mcp:secret")) is not session


def test_a_restarted_server_gives_a_known_handle_a_new_id(
    log: Remembering, clock: Clock, sessions: Sessions
) -> None:
    before = sessions.of(Caller(ME, "task-1")).trajectory_id
    restarted = Sessions(log, idle_seconds=60, most=3, now=clock)
    by_id = restarted.of(Caller(ME, before))
    assert by_id.trajectory_id != before
    assert by_id.trajectory_id.startswith("task-1.")
    assert restarted.of(Caller(ME, before)) is by_id
    assert restarted.of(Caller(ME, by_id.trajectory_id)) is by_id


def test_events_come_in_order_and_an_end_ends(log: Remembering, sessions: Sessions) -> None:
    caller = Caller(ME, "t")
    session = sessions.of(caller)
    session.searched("q", RESULT)
    session.opened("a")
    ended = sessions.end(caller, "correct", "1965", reasoning="It says so.")
    assert ended is session
    assert log.events[session.trajectory_id] == [
        ("search", "q", ["a"], 3),
        ("browse", "a"),
        ("reasoning", "It says so."),
        ("answer", "1965"),
        ("end", "correct"),
    ]
    assert session.events == 5
    assert sessions.end(caller) is None
    assert sessions.of(caller).trajectory_id != session.trajectory_id


def test_what_never_began_is_not_ended_on_the_log(log: Remembering, sessions: Sessions) -> None:
    session = sessions.of(Caller(ME, "t"))
    sessions.end(Caller(ME, "t"))
    assert log.events[session.trajectory_id] == []


def test_the_silent_are_ended_and_the_busy_are_not(
    log: Remembering, clock: Clock, sessions: Sessions
) -> None:
    silent, busy = sessions.of(Caller(ME, "a")), sessions.of(Caller(ME, "b"))
    for session in (silent, busy):
        session.opened("x")
    clock.now = 59
    assert sessions.end_idle() == 0
    sessions.of(Caller(ME, "b"))
    clock.now = 60
    assert sessions.end_idle() == 1
    assert log.events[silent.trajectory_id][-1] == ("end", "unknown")
    assert sessions.of(Caller(ME, "b")) is busy
    sessions.end_all()
    assert log.events[busy.trajectory_id][-1] == ("end", "unknown")
    assert len(sessions) == 0


def test_one_too_many_ends_the_longest_silent(log: Remembering, sessions: Sessions) -> None:
    first, second, _third = (sessions.of(Caller(ME, name)) for name in "abc")
    first.opened("x")
    second.opened("x")
    sessions.of(Caller(ME, "a"))
    sessions.of(Caller(ME, "d"))
    assert len(sessions) == 3
    assert log.events[second.trajectory_id][-1] == ("end", "unknown")
    assert log.events[first.trajectory_id][-1] == ("browse", "x")
