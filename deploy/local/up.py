"""``retrail up``: start the stack, show it, keep it running, stop it in good order."""

import time
from pathlib import Path

from rich.console import Console

from deploy.errors import StoppedEarly
from deploy.local import environment
from deploy.local.stack import LocalStack
from deploy.local.view import View
from retrail_runtime.signals import AskedToStop, Ending, on_ending_signals

INTERVAL = 0.25
"""Seconds between two looks at the processes."""


def run(stack: LocalStack, view: View, env_file: Path | None) -> None:
    """Run a stack until Ctrl-C, SIGTERM or SIGHUP; a second one kills what still runs.

    Args:
        stack: not started yet.
        view: where it is shown; the stack announces to it.
        env_file: removed now and written once everything is ready, with the settings that reach
            the stack.

    Raises:
        StoppedEarly: asked to stop before everything was ready.
        RetrailError: the stack cannot start, or lost a part; everything is stopped by then.
    """
    ending = Ending(stack.send_kill)
    ready = False
    with on_ending_signals(ending):
        try:
            if env_file is not None:
                env_file.unlink(missing_ok=True)
            stack.start()
            ready = True
            if env_file is not None:
                values = environment.variables(stack.settings)
                environment.write(env_file, values, stack.started)
            view.say(_how_to_reach(stack, env_file))
            view.begin(stack.parts())
            while True:
                stack.check()
                view.show(stack.parts())
                time.sleep(INTERVAL)
        except AskedToStop:
            view.say("stopping: workers, Milvus, broker (Ctrl-C once more kills them)")
        finally:
            ending.stopping = True
            view.end()
            stack.stop()
    if not ready:
        raise StoppedEarly("Stopped before the stack was ready.")
    view.say("stopped")


def _how_to_reach(stack: LocalStack, env_file: Path | None) -> str:
    if env_file is not None:
        return f"ready; other shells reach it after: export RETRAIL_ENV_FILE={env_file.absolute()}"
    lines = environment.rendered(environment.variables(stack.settings))
    return f"ready; settings for other shells (or use --env-file):\n{lines}Ctrl-C stops everything"


def view_on_output() -> View:
    """The view on standard output."""
    return View(Console())
