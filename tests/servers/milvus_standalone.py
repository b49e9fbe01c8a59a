"""A real standalone Milvus as one child process on the loopback (Linux x86-64)."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.milvus import MilvusLite
from deploy.processes import Child
from tests.servers import milvus_wheel, private_network

PORT = 19530
"""In its own network."""

SESSION_SECONDS = 3
"""A killed server's lease on itself; its next start waits until that is over. Its default is 30."""


class MilvusStandalone(MilvusLite):
    """Milvus 2.3.5 with everything it needs in one process, over a folder.

    Up in 5 s, with 220 MB; in 10 s after a kill, whose lease must end first. Asked to stop it
    closes its files and then ends by a panic, status 134.
    """

    def __init__(
        self,
        folder: Path,
        log_file: Path,
        *,
        port: int = 0,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing runs before :meth:`start`.

        Args:
            folder: what the server keeps.
            log_file: where its output goes.
            port: to listen on; 0 takes the one that this folder had last, or any free one.
            options: names in the template of its settings, for instance ``authorization_enabled``.
        """
        super().__init__(folder, log_file, port=port)
        self._options = dict(options or {})

    def command(self) -> Child:
        """The server.

        Raises:
            MissingToolError: it does not run on this machine.
            StackError: it could not be fetched.
        """
        server = milvus_wheel.files()
        folder = self.folder.absolute()
        write_settings(folder / "configs", folder, self.log_file, self._options)
        return Child(
            self.name,
            [
                *(sys.executable, "-I", "-S", private_network.__file__),
                *(str(self.port), str(PORT)),
                *(str(server / "bin" / "milvus"), "run", "standalone"),
            ],
            self.log_file,
            environment={
                "DEPLOY_MODE": "STANDALONE",
                "LD_LIBRARY_PATH": str(server / "bin"),
                "MILVUS_RUN_DIR": str(folder / "run"),
            },
            folder=folder,
        )


def write_settings(configs: Path, folder: Path, log_file: Path, options: Mapping[str, str]) -> None:
    """Write the settings of a server that keeps everything in ``folder``."""
    server = milvus_wheel.files()
    values = {
        "etcd_log_path": str(log_file.absolute()),
        "etcd_data_dir": str(folder / "etcd"),
        "local_storage_dir": str(folder / "storage"),
        "rocksmq_data_dir": str(folder / "rocksmq"),
        "system_log_path": "",
        **options,
    }
    template = (server / "config.yaml.template").read_text()
    template = re.sub(r"(session:\n +ttl:) \d+", rf"\1 {SESSION_SECONDS}", template)
    configs.mkdir(exist_ok=True)
    (configs / "milvus.yaml").write_text(render(template, values))
    (configs / "glog.conf").write_bytes((server / "glog.conf").read_bytes())


def render(template: str, values: Mapping[str, str]) -> str:
    """Fill in ``{{ name(type): default }}``.

    >>> render("port: {{ proxy_port(int): 19530 }}, log: {{ path }}", {"path": "/tmp"})
    'port: 19530, log: /tmp'
    """

    def value(match: re.Match[str]) -> str:
        name, _, default = match[1].partition(":")
        return values.get(name.partition("(")[0].strip(), default.strip())

    return re.sub(r"\{\{(.*?)\}\}", value, template)
