"""The command line as a whole: help, errors, exit statuses."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from retrail_cli import app as app_module
from retrail_cli import main, stack
from schemas.errors import RestartRequiredError

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "pymilvus", "faust", "aiokafka", "transformers", "matplotlib", "rich", "pydantic"}


def commands() -> list[list[str]]:
    """Every command there is, as its words."""
    found: list[list[str]] = []

    def walk(command: Any, words: list[str]) -> None:
        found.append(words)
        for name, child in getattr(command, "commands", {}).items():
            walk(child, [*words, name])

    walk(typer.main.get_command(app_module.app), [])
    return found


def test_the_commands_of_the_design_are_there() -> None:
    wanted = [
        "up",
        "topics create",
        "topics list",
        "worker judge",
        "worker mine",
        "worker train",
        "worker index",
        "publish",
        "mine",
        "pairs",
        "documents load",
        "search",
        "train",
        "releases",
        "promote",
        "rollback",
        "dlq list",
        "dlq show",
        "dlq replay",
        "demo",
        "doctor",
    ]
    assert {" ".join(words) for words in commands()} >= set(wanted)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_has_help(words: list[str], retrail: Any) -> None:
    done = retrail(*words, "--help")
    assert done.status == 0
    assert "Usage: retrail" in done.out
    is_group = any(other != words and other[: len(words)] == words for other in commands())
    if not is_group and words[0] not in ("up", "topics"):
        assert "Example" in done.out


def test_help_is_there_at_once_and_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom retrail_cli import main\nstatus = main(['--help'])\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        f"assert not loaded & {HEAVY!r}, loaded & {HEAVY!r}\nsys.exit(status)"
    )
    quickest = min(timed(script) for _ in range(3))
    assert quickest < 0.5 * slowness()


def timed(script: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


def slowness() -> float:
    """How much slower than a free core this machine is now, judged by Python's own start."""
    return max(1.0, timed("import typing, logging, asyncio") / 0.08)


def test_python_without_docstrings_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "retrail_cli", "up"],
        cwd=ROOT,
        env=os.environ | {"PYTHONOPTIMIZE": "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert re.fullmatch(r"Error: .*PYTHONOPTIMIZE.*\n", done.stderr)


@pytest.mark.parametrize(
    ("given", "wanted"), [("", ""), ("a.example, ::1", "a.example,"), ("*", "*")]
)
def test_the_loopback_is_never_reached_through_a_proxy(given: str, wanted: str) -> None:
    """httpx, urllib and S3 by fsspec; for Milvus see tests/deploy/test_unusual_machines.py."""
    script = """
import http.server, os, threading, urllib.request
import fsspec, httpx
from retrail_cli import main
from retrail.http import SearchClient, ServeError
seen = []
class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        seen.append(self.path)
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()
    do_GET = do_POST = do_HEAD
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
try:
    SearchClient(url).post("/client", {}, "t")
except ServeError as error:
    assert error.status == 404, error
assert main(["--version"]) == 0
assert httpx.get(f"{url}/httpx").status_code == 404
try:
    urllib.request.urlopen(f"{url}/urllib")
except urllib.error.HTTPError as error:
    assert error.code == 404
s3 = fsspec.filesystem("s3", endpoint_url=url, key="k", secret="s")
assert not s3.exists("bucket/object")
assert seen[:3] == ["/client", "/httpx", "/urllib"] and "/bucket/object" in seen, seen
print(os.environ["no_proxy"])
"""
    proxies = ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy")
    environment = os.environ | dict.fromkeys(proxies, "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment | {"no_proxy": given, "NO_PROXY": given},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(wanted)


def test_wrong_usage_is_status_2(retrail: Any) -> None:
    assert retrail("no-such-command").status == 2
    assert retrail("search").status == 2
    for blank in ("", " \n"):
        done = retrail("search", blank)
        assert (done.status, "The query is blank." in done.err) == (2, True)
    done = retrail("mine", "x", "--judge", "nobody")
    assert done.status == 2
    assert "nobody" in done.err


def test_a_setting_that_cannot_be_used_is_named(
    retrail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAIL_PARTITIONS", "many")
    done = retrail("pairs")
    assert done.status == 1
    assert done.err.startswith("Error: These settings cannot be used:")
    assert "RETRAIL_PARTITIONS" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("role", stack.MODULES)
def test_a_worker_that_cannot_go_on_is_status_75(
    role: str, retrail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Module:
        @staticmethod
        def run(settings: Any) -> None:
            raise RestartRequiredError(f"the {settings.revision} worker lost its assignment")

    def import_module(name: str) -> type[Module]:
        assert name == stack.MODULES[role]
        return Module

    monkeypatch.setenv("RETRAIL_REVISION", role)
    monkeypatch.setattr("importlib.import_module", import_module)
    done = retrail("worker", role)
    assert done.status == 75
    assert done.err == f"Error: the {role} worker lost its assignment\n"


def test_every_worker_module_is_there() -> None:
    for module in stack.MODULES.values():
        path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        assert "def run(settings: Settings) -> None:" in path.read_text()


def test_an_interrupt_is_status_130(retrail: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("schemas.settings.load", interrupt)
    assert retrail("pairs").status == 130


@pytest.mark.parametrize(
    ("missing", "extra", "command"),
    [("pymilvus", "search", ["search", "x"]), ("torch", "search", ["train"])],
)
def test_a_missing_extra_is_named(missing: str, extra: str, command: list[str]) -> None:
    script = (
        f"import sys\nsys.modules[{missing!r}] = None\nfrom retrail_cli import main\n"
        f"sys.exit(main({command!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"needs {missing}" in done.stderr
    assert f"pip install 'retrail-server[{extra}]'" in done.stderr
    assert "pip install 'retrail-server[all]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_module_of_our_own_is_a_bug_and_not_an_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "streams.importing.offline", None)
    with pytest.raises(ModuleNotFoundError):
        main(["mine", str(tmp_path)])


@pytest.mark.parametrize(
    "module",
    [
        *("consumers.releases", "consumers.training.history", "deploy.topics"),
        *("retrail_runtime.kafka", "serving.access.local"),
    ],
)
def test_commands_that_read_records_do_not_load_torch_or_milvus(module: str) -> None:
    """``releases``, ``pairs``, ``topics``, ``dlq``, ``train --run`` and ``search`` import these."""
    script = f"import sys, {module}; print({{'torch', 'pymilvus', 'numpy'}} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("arguments", [["search", "x"], ["releases"]])
def test_a_process_ends_with_all_its_output_and_its_status(arguments: list[str]) -> None:
    program = (
        f"import sys, retrail_cli\nsys.argv = {['retrail', *arguments]!r}\n"
        "retrail_cli.main = lambda: print('found') or print('lost', file=sys.stderr) or 3\n"
        "retrail_cli.command()"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("found\n", "lost\n", 3)
