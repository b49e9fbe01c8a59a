"""The restart policy, and a supervisor over real processes."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import StackError
from deploy.processes import Child
from deploy.supervisor import (
    DELAYS,
    WINDOW,
    Supervisor,
    Worker,
    recent_exits,
    restart_delay,
)
from tests.waiting import eventually


@pytest.mark.parametrize(
    ("exits", "recent", "delay"),
    [
        ([1000.0], 1, 1.0),
        ([900.0, 1000.0], 2, 3.0),
        ([800.0, 900.0, 1000.0], 3, None),
        ([700.1, 900.0, 1000.0], 3, None),
        ([700.0, 900.0, 1000.0], 2, 3.0),
        ([1.0, 2.0, 1000.0], 1, 1.0),
    ],
)
def test_third_exit_in_five_minutes_is_the_last(
    exits: list[float], recent: int, delay: float | None
) -> None:
    assert recent_exits(exits, 1000.0) == recent
    assert restart_delay(recent) == delay


@given(st.lists(st.floats(0, 1000), min_size=1).map(sorted))
def test_gives_up_exactly_when_three_exits_are_recent(exits: list[float]) -> None:
    now = exits[-1]
    recent = [moment for moment in exits if now - moment < WINDOW]

    assert recent_exits(exits, now) == len(recent)
    delay = restart_delay(len(recent))
    assert delay == (DELAYS[len(recent) - 1] if len(recent) < 3 else None)


class Clock:
    """Time that passes when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def messages() -> list[str]:
    return []


def worker(folder: Path, script: str) -> Worker:
    return Worker(Child("judge", ["sh", "-c", script], folder / "judge.log"), folder / "run")


@pytest.fixture
def dying(tmp_path: Path, messages: list[str], clock: Clock) -> Iterator[Supervisor]:
    mortal = worker(tmp_path, "echo the broker is gone; exit 75")
    mortal.child.start()
    supervisor = Supervisor([], [mortal], messages.append, clock=clock)
    yield supervisor
    supervisor.stop()


def test_restarts_a_worker_and_reports_why(
    dying: Supervisor, messages: list[str], clock: Clock
) -> None:
    (mortal,) = dying.workers
    first = mortal.child.pid
    assert mortal.child.wait(10)

    dying.check()
    assert mortal.state == "restarting"
    assert (
        "judge exited with status 75, exit 1 of 3 within 5 minutes; restarting in 1 s"
        in messages[0]
    )
    assert "the broker is gone" in messages[0]

    clock.now = 0.9
    dying.check()
    assert mortal.child.pid == first
    clock.now = 1.0
    dying.check()
    assert mortal.child.pid != first


def test_third_exit_ends_the_stack(dying: Supervisor, messages: list[str], clock: Clock) -> None:
    (mortal,) = dying.workers
    for exits in (1, 2):
        assert mortal.child.wait(10)
        dying.check()
        assert len(mortal.exits) == exits
        clock.now += DELAYS[exits - 1]
        dying.check()
    assert mortal.child.wait(10)

    with pytest.raises(StackError, match="exit 3 of 3 within 5 minutes") as caught:
        dying.check()
    assert "the broker is gone" in str(caught.value)
    assert len(messages) == 2


def test_outages_of_a_server_are_not_counted_once_a_worker_has_served(
    tmp_path: Path, messages: list[str], clock: Clock
) -> None:
    script = f"mkdir -p {tmp_path}/run; echo 1 > {tmp_path}/run/judge-$$.metrics; exit 69"
    waiting = worker(tmp_path, script)
    supervisor = Supervisor([], [waiting], messages.append, clock=clock)
    for _ in range(5):
        waiting.child.start()
        assert waiting.child.wait(10)
        supervisor.check()
        assert waiting.restart_at == clock.now + DELAYS[-1]
        waiting.restart_at = None
        waiting.child.command = ["sh", "-c", "exit 69"]
    assert waiting.exits == []
    assert all("exited with status 69, because a server does not" in text for text in messages)


def test_outages_at_the_first_start_are_counted(tmp_path: Path, messages: list[str]) -> None:
    waiting = worker(tmp_path, "exit 69")
    waiting.child.start()
    assert waiting.child.wait(10)
    Supervisor([], [waiting], messages.append).check()
    assert len(waiting.exits) == 1


def test_worker_runs_once_it_serves_metrics(tmp_path: Path) -> None:
    live = worker(tmp_path, "exec sleep 60")
    live.run_folder.mkdir()
    live.child.start()
    try:
        assert (live.state, live.metrics_port) == ("starting", None)
        (live.run_folder / f"judge-{live.child.pid}.metrics").write_text("1234")
        assert (live.state, live.metrics_port) == ("running", 1234)
    finally:
        Supervisor([], [live], print).stop()
    assert live.state == "stopped"
    assert list(live.run_folder.iterdir()) == []


def test_worker_that_will_not_stop_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    monkeypatch.setattr("deploy.supervisor.STOP_GRACE", 0.2)
    script = (
        "import signal,subprocess,sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    )
    stubborn = Worker(
        Child("train", [sys.executable, "-c", script], tmp_path / "train.log"), tmp_path / "run"
    )
    stubborn.child.start()
    grandchild = int(eventually(stubborn.child.log_tail, what="the pid of the grandchild"))

    Supervisor([], [stubborn], messages.append).stop()

    assert stubborn.child.exit_status == -9
    assert messages == ["train did not stop within 0 s: killed"]
    eventually(lambda: _gone(grandchild), what="end of the grandchild")


def _gone(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().split()[2] == "Z"
