"""Keeping workers alive: when to restart one, and when to give the whole stack up."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deploy.errors import StackError
from deploy.processes.child import Child
from deploy.processes.server import Server

WINDOW = 300.0
"""Seconds in which exits of a worker count together."""

DELAYS = (1.0, 3.0)
"""Seconds before the restart after the first, second, … exit in the window; one more ends all."""

STOP_GRACE = 20.0
"""Seconds that a worker has to finish what it is at before it is killed."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Start the worker again ``delay`` seconds from now; it is its ``number``-th recent exit."""

    delay: float
    number: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the stack: the worker exited ``exits`` times in the window."""

    exits: int


def decide(exits: Sequence[float], now: float) -> Restart | GiveUp:
    """What to do about a worker that has just exited.

    Args:
        exits: when it exited, in seconds of one clock, the latest included.
        now: that clock.
    """
    recent = sum(1 for moment in exits if now - moment < WINDOW)
    if recent > len(DELAYS):
        return GiveUp(recent)
    return Restart(DELAYS[max(recent, 1) - 1], recent)


WorkerState = Literal["starting", "running", "restarting", "stopped"]


@dataclass
class Worker:
    """One worker process and what became of its earlier lives."""

    child: Child
    run_folder: Path
    """Where a worker writes ``<role>-<pid>.metrics`` once it works
    (retrail_runtime.metrics).
    """
    exits: list[float] = field(default_factory=list)
    restart_at: float | None = None

    @property
    def name(self) -> str:
        """Its role, numbered if there are several."""
        return self.child.name

    @property
    def metrics_port(self) -> int | None:
        """Port of its ``/metrics`` page, once it serves one."""
        if not self.child.running:
            return None
        for file in self.run_folder.glob(f"*-{self.child.pid}.metrics"):
            text = file.read_text()
            return int(text) if text else None
        return None

    @property
    def state(self) -> WorkerState:
        """What it is doing."""
        if self.restart_at is not None:
            return "restarting"
        if not self.child.running:
            return "stopped"
        return "starting" if self.metrics_port is None else "running"

    def forget_metrics(self) -> None:
        """Remove what its last life wrote about its metrics page."""
        for file in self.run_folder.glob(f"*-{self.child.pid}.metrics"):
            file.unlink(missing_ok=True)


class Supervisor:
    """Watches servers, which must not end, and workers, which are restarted."""

    def __init__(
        self,
        servers: Sequence[Server],
        workers: Sequence[Worker],
        announce: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """All are started by the caller.

        Args:
            servers: in the order in which they were started.
            workers: stopped before the servers.
            announce: called with a text for people when something happens.
            clock: seconds.
        """
        self.servers = servers
        self.workers = workers
        self._announce = announce
        self._clock = clock

    def check(self) -> None:
        """Look after everything once; to be called about every second or more often.

        Raises:
            StackError: a server ended, or a worker exited too often.
        """
        for server in self.servers:
            if server.child is not None and not server.child.running:
                raise StackError(
                    f"{server.name} ended {_ending(server.child)}. The end of "
                    f"{server.log_file}:\n{server.child.log_tail()}"
                )
        for worker in self.workers:
            self._look_after(worker)

    def stop(self) -> None:
        """Stop the workers, all at once, then the servers, the last one first."""
        try:
            for worker in self.workers:
                worker.restart_at = None
                worker.child.ask_to_stop()
            deadline = self._clock() + STOP_GRACE
            for worker in self.workers:
                if not worker.child.wait(max(0.0, deadline - self._clock())):
                    self._announce(f"{worker.name} does not stop within {STOP_GRACE:.0f} s: killed")
                    worker.child.kill()
                worker.forget_metrics()
            for server in reversed(self.servers):
                server.stop()
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill everything at once."""
        self.send_kill()
        for child in self._children():
            child.kill()

    def send_kill(self) -> None:
        """The first half of :meth:`kill`; a signal handler may call it."""
        for child in self._children():
            child.send_kill()

    def _children(self) -> list[Child]:
        servers = [server.child for server in self.servers if server.child is not None]
        return [worker.child for worker in self.workers] + servers

    def _look_after(self, worker: Worker) -> None:
        now = self._clock()
        if worker.restart_at is not None:
            if now >= worker.restart_at:
                worker.restart_at = None
                worker.child.start()
            return
        if worker.child.running:
            return
        worker.forget_metrics()
        worker.exits.append(now)
        tail = worker.child.log_tail(8)
        what = f"{worker.name} exited {_ending(worker.child)}"
        match decide(worker.exits, now):
            case GiveUp(exits):
                raise StackError(
                    f"{what}, the {_ordinal(exits)} time in {WINDOW / 60:.0f} minutes. The end of "
                    f"{worker.child.log_file}:\n{tail}"
                )
            case Restart(delay, number):
                worker.restart_at = now + delay
                self._announce(
                    f"{what}; restart in {delay:g} s (exit {number}; the "
                    f"{_ordinal(len(DELAYS) + 1)} in {WINDOW / 60:.0f} minutes ends the stack). "
                    f"Its last lines:\n{tail}"
                )


def _ending(child: Child) -> str:
    status = child.exit_status
    if status is not None and status < 0:
        return f"on signal {-status}"
    return f"with status {status}"


def _ordinal(number: int) -> str:
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(number, f"{number}th")
