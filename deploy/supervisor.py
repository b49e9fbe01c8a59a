"""Restarts workers that exit, and ends the stack when one exits too often.

Exits because Kafka, Milvus or the registry does not answer do not count, once a worker has served:
the worker is restarted until the server is back.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deploy.errors import StackError
from deploy.processes import STOP_GRACE, Child, Server
from schemas.errors import EXIT_UNAVAILABLE

WINDOW = 300.0
"""Seconds in which exits of a worker count together."""

DELAYS = (1.0, 3.0)
"""Seconds before the restart after each exit in the window; one more exit ends the stack."""


def recent_exits(exits: Sequence[float], now: float) -> int:
    """How many of the ``exits`` (times of one clock, in seconds) are in the window before now."""
    return sum(now - moment < WINDOW for moment in exits)


def restart_delay(recent: int) -> float | None:
    """Seconds until a worker is restarted after so many recent exits; ``None``: not any more."""
    return DELAYS[recent - 1] if recent <= len(DELAYS) else None


WorkerState = Literal["starting", "running", "restarting", "stopped"]


@dataclass
class Worker:
    """One worker process and the times of its earlier exits; ``served``: it had a metrics page."""

    child: Child
    run_folder: Path
    """Where a worker writes ``<role>-<pid>.metrics`` once it serves its metrics page."""
    exits: list[float] = field(default_factory=list)
    restart_at: float | None = None
    served: bool = False

    @property
    def name(self) -> str:
        """Its role, numbered if several workers have it."""
        return self.child.name

    @property
    def role(self) -> str:
        """Its role."""
        return self.name.partition("-")[0]

    @property
    def metrics_file(self) -> Path:
        """Where its process writes the port of its metrics page."""
        return self.run_folder / f"{self.role}-{self.child.pid}.metrics"

    @property
    def metrics_port(self) -> int | None:
        """Port of its metrics page, once it serves one."""
        text = self.metrics_file.read_text() if self.metrics_file.exists() else ""
        return int(text) if text and self.child.running else None

    @property
    def state(self) -> WorkerState:
        """Its state."""
        if self.restart_at is not None:
            return "restarting"
        if not self.child.running:
            return "stopped"
        return "starting" if self.metrics_port is None else "running"


class Supervisor:
    """Watches servers, which must not end, and restarts workers."""

    def __init__(
        self,
        servers: Sequence[Server],
        workers: Sequence[Worker],
        announce: Callable[[str], object],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """All are started by the caller.

        Args:
            servers: in the order in which they were started.
            workers: stopped before the servers.
            announce: called with messages about what happens.
            clock: seconds.
        """
        self.servers = servers
        self.workers = workers
        self._announce = announce
        self._clock = clock

    def check(self) -> None:
        """Restart workers that exited; to be called about every second or more often.

        Raises:
            StackError: a server ended, or a worker exited too often.
        """
        for server in self.servers:
            if server.child is not None and not server.child.running:
                raise StackError(
                    f"{server.name} ended {_ending(server.child)}. {server.child.end_of_log}"
                )
        for worker in self.workers:
            self._check_worker(worker)

    def stop(self) -> None:
        """Stop the workers, all at once, then the servers, the last one first."""
        try:
            for worker in self.workers:
                worker.restart_at = None
                worker.child.ask_to_stop()
            deadline = self._clock() + STOP_GRACE
            for worker in self.workers:
                if not worker.child.wait(max(0.0, deadline - self._clock())):
                    self._announce(f"{worker.name} did not stop within {STOP_GRACE:.0f} s: killed")
                    worker.child.kill()
                worker.metrics_file.unlink(missing_ok=True)
            for server in reversed(self.servers):
                server.stop()
        finally:
            self.send_kill()
            for child in self._children():
                child.kill()

    def send_kill(self) -> None:
        """Kill everything without waiting; a signal handler may call it."""
        for child in self._children():
            child.send_kill()

    def _children(self) -> list[Child]:
        servers = [server.child for server in self.servers if server.child is not None]
        return [worker.child for worker in self.workers] + servers

    def _check_worker(self, worker: Worker) -> None:
        now = self._clock()
        if worker.restart_at is not None:
            if now >= worker.restart_at:
                worker.restart_at = None
                worker.child.start()
            return
        if worker.child.running:
            return
        worker.served |= worker.metrics_file.exists()
        worker.metrics_file.unlink(missing_ok=True)
        what = f"{worker.name} exited {_ending(worker.child)}"
        delay: float | None = DELAYS[-1]
        if worker.served and worker.child.exit_status == EXIT_UNAVAILABLE:
            which = "because a server does not answer"
        else:
            worker.exits.append(now)
            recent = recent_exits(worker.exits, now)
            which = f"exit {recent} of {len(DELAYS) + 1} within {WINDOW / 60:.0f} minutes"
            delay = restart_delay(recent)
        if delay is None:
            raise StackError(f"{what}, {which}. {worker.child.end_of_log}")
        worker.restart_at = now + delay
        self._announce(f"{what}, {which}; restarting in {delay:g} s. {worker.child.end_of_log}")


def _ending(child: Child) -> str:
    status = child.exit_status
    if status is not None and status < 0:
        return f"on signal {-status}"
    return f"with status {status}"
