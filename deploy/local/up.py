"""``retrail up``: start the stack, show it, keep it running, stop it in good order."""

import time
from pathlib import Path

from deploy.errors import StackError
from deploy.local import environment
from deploy.local.stack import LocalStack
from deploy.local.view import View
from retrail_runtime.signals import StopSignals, interrupt
from schemas.errors import EXIT_INTERRUPTED

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
        RetrailError: the stack cannot start, lost a part, or was stopped before it was ready
            (status 130); everything is stopped by then.
    """
    signals = StopSignals(interrupt, again=stack.send_kill)
    ready = False
    with signals:
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
        except KeyboardInterrupt:
            view.say("stopping: workers, Milvus, broker (Ctrl-C once more kills them)")
            if not ready:
                raise StackError(
                    "Stopped before the stack was ready.", exit_status=EXIT_INTERRUPTED
                ) from None
        finally:
            signals.stopping = True
            view.end()
            stack.stop()
    view.say("stopped")


def _how_to_reach(stack: LocalStack, env_file: Path | None) -> str:
    if env_file is not None:
        return f"ready; other shells reach it after: export RETRAIL_ENV_FILE={env_file.absolute()}"
    lines = environment.rendered(environment.variables(stack.settings))
    return f"ready; settings for other shells (or use --env-file):\n{lines}Ctrl-C stops everything"
