"""Prometheus and its promtool: those on the PATH, or Debian's package, unpacked into the cache."""

import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from filelock import FileLock

from deploy.errors import MissingToolError, StackError
from deploy.processes import Child, Server
from retrail_runtime.files import user_cache

FETCH_TIMEOUT = 300.0
"""Seconds for 30 MB."""


def scraping(target: str) -> str:
    """The configuration of a Prometheus that scrapes ``target`` every second."""
    return f"""\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
scrape_configs:
  - job_name: retrail
    static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus(Server):
    """A Prometheus with a given configuration; its data are in ``data`` in its folder."""

    name = "prometheus"
    port_names = ("web",)
    setting = "metrics_port"

    def __init__(self, folder: Path, log_file: Path, configuration: str) -> None:
        """``configuration`` is the text of prometheus.yml."""
        super().__init__(folder, log_file)
        self._configuration = configuration

    def command(self) -> Child:
        """The server; raises like :func:`program`."""
        configuration = self.folder / "prometheus.yml"
        configuration.write_text(self._configuration)
        return Child(
            self.name,
            [
                program("prometheus"),
                f"--config.file={configuration}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address={self.address}",
            ],
            self.log_file,
        )

    def answers(self) -> bool:
        """Whether it has loaded its configuration."""
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False

    def query(self, expression: str, **options: object) -> list[dict[str, Any]]:
        """The result of a query: at ``time``, or from ``start`` to ``end`` by ``step``."""
        kind = "query_range" if "step" in options else "query"
        parameters = urllib.parse.urlencode({"query": expression} | options)
        url = f"http://{self.address}/api/v1/{kind}"
        with urllib.request.urlopen(url, data=parameters.encode(), timeout=30) as response:
            result: list[dict[str, Any]] = json.load(response)["data"]["result"]
            return result


def promtool() -> str:
    """Path of promtool, version 2.42 or newer.

    Raises:
        MissingToolError: it is not installed, and there is no apt-get to fetch it.
        StackError: it could not be fetched.
    """
    return program("promtool")


def program(name: str) -> str:
    """Path of ``prometheus`` or ``promtool``; raises like :func:`promtool`."""
    installed = shutil.which(name)
    if installed:
        return installed
    folder = user_cache() / "prometheus"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            _fetch(folder)
    return str(folder / "usr" / "bin" / name)


def _fetch(folder: Path) -> None:
    """Download and unpack the package; it needs no rights of an administrator."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise MissingToolError(
            "prometheus and promtool are not installed, and only Debian's apt-get can fetch them "
            "here. Install Prometheus 2.42 or newer."
        )
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        for command in (
            ["apt-get", "-q", "download", "prometheus"],
            ["sh", "-c", "dpkg-deb --extract prometheus_*.deb unpacked"],
        ):
            done = subprocess.run(
                command, cwd=temporary, capture_output=True, text=True, timeout=FETCH_TIMEOUT
            )
            if done.returncode != 0:
                raise StackError(
                    f"Prometheus could not be fetched: {done.stderr.strip()}. "
                    "Run `apt-get update`, or install prometheus."
                )
        (Path(temporary) / "unpacked").rename(folder)
