"""A publisher that kills itself with SIGKILL before a request; run as a process.

``python -m tests.trainer.killed_publisher URL COPIES CONTENT REQUEST NTH``: publishes ``r/v1`` with
two files of one content, and dies right before the NTH request whose description begins as said.
"""

import os
import signal
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from tests.trainer.model_writing import files
from trainer.registry.registry_objects import ObjectStorage


class Killed(ObjectStorage):
    """Dies before one request."""

    def __init__(self, url: str, copies: Path, request: str, nth: int) -> None:
        super().__init__(url, copies)
        self._request = request
        self._left = nth

    def _asking(self, what: str) -> AbstractContextManager[None]:
        self._left -= what.startswith(self._request)
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._asking(what)


if __name__ == "__main__":
    url, copies, content, request, nth = sys.argv[1:]
    storage = Killed(url, Path(copies), request, int(nth))
    with storage.writing("r/v1") as folder:
        files(a=content, b=content)(folder)
        storage.add("r/v1", folder)
