"""Child processes and servers of the local stack.

A child writes to a log file and ends with the process that started it. A server is a child with a
folder and loopback ports that stay the same between starts.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from deploy.errors import StackError

log = structlog.get_logger(__name__)

START_TIMEOUT = 90.0
STOP_GRACE = 20.0
"""Seconds that a process has to stop before it is killed."""

LOOPBACK = "127.0.0.1"
RANGE = range(20000, 32768)
"""Below the ephemeral ranges of Linux and macOS, so that no outgoing connection takes the port of a
server that restarts."""
TETHER = Path(__file__).with_name("tether.py")
LINE_LIMIT = 300
"""Characters of a log's line in a message."""
LOG_LIMIT = 16 * 1024 * 1024
"""Bytes; a larger log is renamed to ``….log.1`` when its process starts."""
_TRACE = ("Traceback", "During handling", "The above exception")


class Child:
    """A child process in a session of its own, with a log file.

    The session keeps the terminal's Ctrl-C from it, so that the parent stops its children in order.
    The kernel kills it if this process dies (Linux, see ``tether``).
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_file: Path,
        *,
        environment: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        folder: Path | None = None,
    ) -> None:
        """Nothing runs before :meth:`start`.

        Args:
            name: in messages.
            command: program and arguments.
            log_file: standard output and error are appended here.
            environment: variables added to those of this process.
            stop_signal: stops it cleanly.
            folder: its working directory; by default that of this process.
        """
        self.name = name
        self.command = list(command)
        self.log_file = log_file
        self.environment = dict(environment or {})
        self.stop_signal = stop_signal
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run the program; it must not be running."""
        if self.running:
            raise RuntimeError(f"{self.name} is running already")
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_LIMIT:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        with self.log_file.open("ab") as log:
            forked = _forker.submit(
                subprocess.Popen,
                [sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | self.environment,
                start_new_session=True,
                cwd=self.folder,
            )
            try:
                self._process = forked.result()
            except BaseException:
                # An exception raised by a signal: the process may have been started.
                with contextlib.suppress(OSError):
                    self._process = forked.result()
                self.kill()
                raise

    def run(self, timeout: float) -> bool:
        """Run the program to its end; returns whether it ended within ``timeout`` seconds."""
        try:
            self.start()
            return self.wait(timeout)
        finally:
            self.kill()

    @property
    def pid(self) -> int | None:
        """Process id, kept after its end; ``None`` before the first start."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """Exit status (negative: a signal); ``None`` while it runs."""
        return self._process.poll() if self._process else None

    def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for its end; returns whether it ended."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def ask_to_stop(self) -> None:
        """Send the stop signal, if it runs."""
        if self._process is not None and self.running:
            self._process.send_signal(self.stop_signal)

    def stop(self, grace: float) -> None:
        """Send the stop signal; after ``grace`` seconds kill its process group."""
        self.ask_to_stop()
        if not self.wait(grace):
            self.kill()

    def kill(self) -> None:
        """Kill its process group and wait for its end."""
        if self._process is not None and self.running:
            self.send_kill()
            self._process.wait()

    def send_kill(self) -> None:
        """Kill its process group without waiting; safe in a signal handler."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of its log; empty before the first start."""
        if not self.log_file.exists():
            return ""
        with self.log_file.open("rb") as file:
            file.seek(max(0, self.log_file.stat().st_size - 400 * lines))
            text = file.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    @property
    def end_of_log(self) -> str:
        """A sentence with the path of its log and the last line there that is no stack trace."""
        lines = [line for line in self.log_tail(100).splitlines() if line[:1].strip()]
        last = next((x for x in reversed(lines) if not x.startswith(_TRACE)), "")
        ends = f"ends with: {last[:LINE_LIMIT]}" if last else "is empty."
        return f"Its log, {self.log_file}, {ends}"


# The kernel sends its signal when the *thread* that forked ends, and a stack may be started from a
# thread that ends early. So a single thread, which lives as long as the process, forks.
_forker = ThreadPoolExecutor(1, thread_name_prefix="forker")


class Server(ABC):
    """A server of the local stack, on the loopback only.

    Subclasses define its command (:meth:`command`) and when it is ready (:meth:`answers`).
    """

    name: str
    port_names: tuple[str, ...]
    """Names of its ports; the first one is for clients."""
    setting: str
    """The setting that holds its address."""
    description: str
    """In messages; known once launched."""

    def __init__(self, folder: Path, log_file: Path, *, port: int = 0) -> None:
        """Nothing runs before :meth:`start`.

        Args:
            folder: its data; created if absent.
            log_file: receives its output.
            port: to listen on; 0: the last port of this folder, or any free one.
        """
        self.folder = folder
        self.log_file = log_file
        self.ports: Mapping[str, int] = {}
        self.child: Child | None = None
        self._wanted_port = port

    @abstractmethod
    def command(self) -> Child:
        """Prepare the folder and return the child to start."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves clients; called when its port accepts connections."""

    @property
    def port(self) -> int:
        """The port for clients; known once started."""
        return self.ports[self.port_names[0]]

    @property
    def address(self) -> str:
        """``host:port``; known once launched."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def client_address(self) -> str:
        """The value of :attr:`setting` for clients; known once launched."""
        return self.address

    def start(self) -> None:
        """Start the server; returns when it answers.

        Raises:
            MissingToolError: a program or package that it needs is not installed.
            StackError: the given port is in use, or the server did not start; the
                message holds the end of its log.
        """
        self.launch()
        try:
            self.wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def launch(self) -> None:
        """Start the process; does not wait until the server answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ports = self.choose_ports()
        self.child = self.command()
        self.child.start()

    def wait_until_ready(self) -> None:
        """Wait until the launched server answers; raises StackError if it does not."""
        if self.child is None:
            raise RuntimeError(f"{self.name} was not launched")
        began = time.monotonic()
        while not (accepts_connections(self.port) and self.answers()):
            if not self.child.running:
                what = f"{self.name} ended during start with status {self.child.exit_status}"
            elif time.monotonic() > began + START_TIMEOUT:
                what = f"{self.name} did not answer within {START_TIMEOUT:.0f} s"
            else:
                time.sleep(0.05)
                continue
            raise StackError(f"{what}. {self.child.end_of_log}")

    def kill(self) -> None:
        """Kill it at once."""
        if self.child is not None:
            self.child.kill()

    def stop(self) -> None:
        """Stop it cleanly; kill it after :data:`STOP_GRACE` seconds."""
        if self.child is not None:
            self.child.stop(STOP_GRACE)

    def choose_ports(self) -> dict[str, int]:
        """The ports to use, stored in ``ports.json`` for the next start."""
        kept = self.folder / "ports.json"
        last: dict[str, int] = json.loads(kept.read_text()) if kept.exists() else {}
        if self._wanted_port:
            if not is_free(self._wanted_port):
                raise StackError(
                    f"Port {self._wanted_port} for {self.name} is in use. Choose another "
                    "port, or 0 for any free one."
                )
            last = last | {self.port_names[0]: self._wanted_port}
        chosen = keep_or_choose({name: last.get(name) for name in self.port_names})
        kept.write_text(json.dumps(chosen))
        for name, port in chosen.items():
            if last.get(name, port) != port:
                log.warning("port in use, using another", server=self.name, now=port)
        return chosen


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as candidate:
        # As servers do, so that connections of a former server in TIME_WAIT do not matter.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """``count`` different ports that are free now, in random order.

    Raises:
        StackError: there are not that many.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(RANGE, len(RANGE)):
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    try:
        socket.create_server((LOOPBACK, 0)).close()
    except OSError as error:
        raise StackError(
            f"Cannot listen on {LOOPBACK}: {error.strerror}. `retrail up` needs the loopback "
            "interface of IPv4."
        ) from error
    raise StackError(f"No {count} free ports between {RANGE.start} and {RANGE.stop - 1}.")


def keep_or_choose(last: Mapping[str, int | None]) -> dict[str, int]:
    """The last port of each name if it is free, else another free one; all different."""
    chosen = {name: port for name, port in last.items() if port is not None and is_free(port)}
    fresh = iter([port for port in free_ports(2 * len(last)) if port not in chosen.values()])
    return {name: chosen.get(name) or next(fresh) for name in last}


def accepts_connections(port: int) -> bool:
    """Whether something accepts connections on this loopback port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=0.5):
            return True
    except OSError:
        return False
