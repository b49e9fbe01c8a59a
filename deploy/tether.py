"""Execute a program that the kernel kills when its parent dies.

Run as ``python -I -S tether.py PARENT_PID PROGRAM ARGUMENT…``. On Linux the kernel sends SIGKILL
when the parent's thread that forked ends (``prctl(2)``, PR_SET_PDEATHSIG, which survives
``execve``), so no broker outlives a killed supervisor. Elsewhere the program just runs.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Tie this process to the parent ``arguments[0]`` and execute ``arguments[1:]``."""
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # A background job of a shell ignores SIGINT, and its children would inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if os.getppid() != parent:
        sys.exit("the parent process has ended")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
