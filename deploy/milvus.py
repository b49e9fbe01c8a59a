"""Milvus Lite's server as one child process on the loopback."""

import importlib.util
import signal
import sys

from deploy.errors import MissingToolError
from deploy.processes import LOOPBACK, Child, Server
from retrail_runtime.milvus import connect
from schemas.errors import MilvusUnavailableError
from schemas.settings import Settings


class MilvusLite(Server):
    """A Milvus Lite server that keeps its collections and its port in a folder."""

    name = "milvus"
    port_names = ("milvus",)
    setting = "milvus_uri"
    description = "Milvus Lite"

    @property
    def client_address(self) -> str:
        """The URI for pymilvus; known once launched."""
        return f"http://{self.address}"

    def command(self) -> Child:
        """The server.

        Raises:
            MissingToolError: milvus-lite or pymilvus is not installed.
        """
        for package in ("milvus_lite", "pymilvus"):
            if importlib.util.find_spec(package) is None:
                raise MissingToolError(
                    f"The package {package} is not installed: pip install "
                    "'retrail-server[local]', or set RETRAIL_MILVUS_URI to a Milvus of your own."
                )
        data = self.folder / "data"
        return Child(
            self.name,
            [
                *(sys.executable, "-P", "-m", "milvus_lite", "server", "--data-dir", str(data)),
                *("--host", LOOPBACK, "--port", str(self.port)),
            ],
            self.log_file,
            # The only signal on which it closes its files.
            stop_signal=signal.SIGINT,
        )

    def answers(self) -> bool:
        """Whether Milvus lists its collections to a client."""
        try:
            connect(Settings(milvus_uri=self.client_address, milvus_token=None)).close()
        except MilvusUnavailableError:
            return False
        return True
