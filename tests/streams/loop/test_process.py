"""A process that cannot end by itself is ended; one that lives on is left alone."""

import itertools
import threading

import pytest

from schemas.errors import RestartRequiredError
from streams.loop import health, process
from streams.loop.process import ExitGuard


@pytest.fixture
def exits(monkeypatch):
    """The statuses that the process would have exited with."""
    monkeypatch.setattr(process, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(health, "STALL_SECONDS", 0.05)
    return []


def ended(thread: threading.Thread) -> bool:
    thread.join(10)
    return not thread.is_alive()


def test_a_library_that_hangs_at_the_end_does_not_keep_the_process(exits):
    assert ended(ExitGuard(exits.append).exit_if_hanging(3, seconds=0.01))
    assert exits == [3]


def test_a_blocked_event_loop_ends_the_process_with_75(exits):
    assert ended(ExitGuard(exits.append).exit_if_blocked(lambda: 7.0))
    assert exits == [RestartRequiredError.exit_status]


def test_after_the_worker_has_ended_the_process_lives_on(exits):
    guard = ExitGuard(exits.append)
    threads = [guard.exit_if_hanging(3, seconds=60), guard.exit_if_blocked(threading.get_ident)]
    guard.close()
    assert all(map(ended, threads))
    assert exits == []


def test_a_loop_that_moves_is_left_alone(exits):
    guard, looks = ExitGuard(exits.append), itertools.count()

    def observed_at() -> float:
        look = next(looks)
        if look == 40:
            guard.close()
        return look

    assert ended(guard.exit_if_blocked(observed_at))
    assert exits == []
