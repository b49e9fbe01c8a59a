"""``retrail up``: starts the stack, prints its state, keeps it running and stops it."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from rich.console import Console

from deploy import environment
from deploy.errors import StackError
from deploy.stack import LocalStack, Part
from retrail_runtime.files import atomic_write
from retrail_runtime.process import StopSignals, interrupt
from schemas.errors import EXIT_INTERRUPTED

log = structlog.get_logger(__name__)

INTERVAL = 0.25
"""Seconds between two checks of the processes."""

TARGETS = "prometheus-targets.json"
"""In the data directory while the stack runs."""


def run(
    stack: LocalStack,
    view: "View",
    env_file: Path | None,
    prepare: Callable[[], None] = lambda: None,
) -> None:
    """Run a stack until Ctrl-C, SIGTERM or SIGHUP; a second one kills what still runs.

    Args:
        stack: not started.
        view: prints the state.
        env_file: removed first, written once everything is ready, with the settings of the
            stack, and marked when the stack stops, unless all its servers are others'.
        prepare: called once everything is ready.

    While the stack runs, ``prometheus-targets.json`` in the data directory names the workers'
    metrics pages.

    Raises:
        RetrailError: the stack cannot start, a part ended, or it was stopped before it was ready
            (status 130). Everything is stopped.
    """
    signals = StopSignals(interrupt, again=stack.send_kill)
    targets = Targets(stack.settings.data_dir / TARGETS)
    ready, written = False, ""
    with signals:
        try:
            if env_file is not None:
                env_file.unlink(missing_ok=True)
                view.say(f"{env_file} is written once everything is ready")
            stack.start()
            ready = True
            if env_file is not None:
                values = environment.variables(stack.settings)
                written = environment.write(env_file, values, stack.started)
            view.show(stack.parts())
            view.say(_how_to_reach(stack, env_file))
            prepare()
            while True:
                stack.check()
                parts = stack.parts()
                view.show(parts)
                targets.update(parts)
                time.sleep(INTERVAL)
        except KeyboardInterrupt:
            view.say("stopping workers, Milvus and broker (press Ctrl-C again to kill them)")
            if not ready:
                raise StackError(
                    "Stopped before the stack was ready.", exit_status=EXIT_INTERRUPTED
                ) from None
        finally:
            signals.stopping = True
            if ready:
                targets.remove()
            if env_file is not None and written and stack.started:
                environment.mark_stopped(env_file, written)
            stack.stop()
    view.say("stopped")


def _how_to_reach(stack: LocalStack, env_file: Path | None) -> str:
    if env_file is not None:
        return f"ready; in other shells: export RETRAIL_ENV_FILE={env_file.absolute()}"
    values, secrets = environment.variables(stack.settings), environment.secrets(stack.settings)
    shown = {name: value for name, value in values.items() if name not in secrets}
    hidden = f"# Not shown: {', '.join(secrets)}\n" if secrets else ""
    return (
        "ready; settings for other shells (--env-file writes them to a file):\n"
        f"{environment.rendered(shown)}{hidden}Ctrl-C stops everything"
    )


class Targets:
    """The file of the workers' ``/metrics`` pages, for Prometheus' ``file_sd_configs``.

    A worker that restarts keeps its last address, so that its target is down meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, object]] = {}
        self._written = ""

    def update(self, parts: Sequence[Part]) -> None:
        """Write the file if the targets changed; log if that fails."""
        self._known |= {
            part.name: {
                "targets": [urlsplit(part.where).netloc],
                "labels": {"instance": part.name, "role": part.role},
            }
            for part in parts
            if part.role and part.where
        }
        content = json.dumps(list(self._known.values()), indent=2) + "\n"
        if content != self._written:
            self._written = content
            try:
                atomic_write(self._path, content)
            except OSError as error:
                log.warning("cannot write the targets of Prometheus", error=str(error))

    def remove(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)


class View:
    """Prints what happens, and every change of a part's state."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: Sequence[Part] = ()

    def say(self, text: str) -> None:
        """Print a line as it is: no markup, never cut."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, parts: Sequence[Part]) -> None:
        """Print the parts that changed."""
        for part in parts:
            if part not in self._shown:
                self.say(line(part))
        self._shown = list(parts)


def line(part: Part) -> str:
    """The state of one part as plain text."""
    details = [part.where, f"pid {part.pid}" if part.pid else "", str(part.log_file or "")]
    return f"{part.name}: {part.state}  {'  '.join(detail for detail in details if detail)}"
