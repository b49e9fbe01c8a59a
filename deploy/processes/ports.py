"""Loopback ports for the servers of the local stack."""

import random
import socket
from collections.abc import Mapping

from deploy.errors import StackError

LOOPBACK = "127.0.0.1"
RANGE = range(20000, 32768)
"""Below the ephemeral ranges of Linux and macOS: while a server restarts, no outgoing connection
can be given its port, so it comes back where its clients look for it."""


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as candidate:
        # As servers do: connections of a former server in TIME_WAIT are no obstacle.
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
    raise StackError(f"No {count} free ports between {RANGE.start} and {RANGE.stop - 1}.")


def keep_or_choose(last: Mapping[str, int | None]) -> dict[str, int]:
    """For every name its last port if that is (still) free, else a free one; all different."""
    chosen = {name: port for name, port in last.items() if port is not None and is_free(port)}
    fresh = iter([port for port in free_ports(2 * len(last)) if port not in chosen.values()])
    return {name: chosen.get(name) or next(fresh) for name in last}


def answers(port: int, timeout: float = 0.5) -> bool:
    """Whether something accepts connections on this loopback port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout):
            return True
    except OSError:
        return False
