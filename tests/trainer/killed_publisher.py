"""A publisher that kills itself with SIGKILL before a request; run as a process.

``python -m tests.trainer.killed_publisher URL CACHE CONTENT REQUEST NTH``: publishes ``r/v1`` with
two files of one content, and dies right before the NTH request whose description begins with
REQUEST, or before the NTH hard link if that is ``link``.
"""

import os
import signal
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tests.trainer.model_writing import files
from trainer.registry.registry import Registry
from trainer.registry.storage import Storage


def kill_before(wanted: str, nth: int) -> None:
    """Kill this process before its nth matching request."""
    request, link, left = Storage._request, os.link, nth

    def count(what: str) -> None:
        nonlocal left
        left -= what.startswith(wanted)
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted_request(storage: Storage, what: str) -> AbstractContextManager[None]:
        count(what)
        return request(storage, what)

    def counted_link(*args: Any) -> None:
        count("link")
        link(*args)

    Storage._request = counted_request  # type: ignore[assignment, method-assign]
    os.link = counted_link  # type: ignore[assignment]


if __name__ == "__main__":
    url, cache, content, request, nth = sys.argv[1:]
    kill_before(request, int(nth))
    Registry(url, Path(cache)).publish("r", 1, files(a=content, b=content))
