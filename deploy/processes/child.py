"""A child process with a log file that cannot outlive the process that started it."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TETHER = Path(__file__).with_name("tether.py")
LOG_LIMIT = 16 * 1024 * 1024
"""Bytes; a larger log is renamed to ``….log.1`` when its process starts."""


class Child:
    """One program run as a child: its own session, output into a log file.

    In its own session it does not get the terminal's Ctrl-C, so its parent decides in which order
    processes stop. The kernel kills it if this process dies (Linux, see ``tether``).
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
            name: for people.
            command: program and arguments.
            log_file: standard output and error are appended here.
            environment: variables beside this process's own.
            stop_signal: the signal on which it stops cleanly.
            folder: where it runs; by default where this process does.
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
                # A signal's exception: the process may well have been started.
                with contextlib.suppress(OSError):
                    self._process = forked.result()
                self.kill()
                raise

    def run(self, timeout: float) -> bool:
        """Run the program to its end; whether that came within ``timeout`` seconds."""
        try:
            self.start()
            return self.wait(timeout)
        finally:
            self.kill()

    @property
    def pid(self) -> int | None:
        """Process id, also after it ended; ``None`` before the first start."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """How it ended (negative: the signal that ended it); ``None`` while it runs."""
        return self._process.poll() if self._process else None

    def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for it to end; whether it has."""
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
        """Ask it to stop; after ``grace`` seconds kill it with all that it started."""
        self.ask_to_stop()
        if not self.wait(grace):
            self.kill()

    def kill(self) -> None:
        """Kill it at once, with all that it started, and wait until it is gone."""
        if self._process is not None and self.running:
            self.send_kill()
            self._process.wait()

    def send_kill(self) -> None:
        """The first half of :meth:`kill`; takes no lock, so a signal handler may call it."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of its log."""
        return tail(self.log_file, lines)


def tail(path: Path, lines: int) -> str:
    """The last ``lines`` lines of a text file that may not exist."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 400 * lines))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])


# The kernel's signal comes when the *thread* that forked ends, and a stack may be started from a
# thread that ends early. So one thread that lives as long as the process does all the forking.
_forker = ThreadPoolExecutor(1, thread_name_prefix="forker")
