"""``retrail up`` in unusual environments: it runs, or one line names the cause."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from retrail_runtime.files import user_cache
from tests.deploy.up_process import retrail_up
from tests.waiting import eventually

NO_SHM = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o ro none /dev/shm && exec "$@"', "sh")
IPV6_ONLY = (
    *("unshare", "-rn", "sh", "-c"),
    'ip link set lo up && ip address del 127.0.0.1/8 dev lo && exec "$@"',
    "sh",
)


def require(command: Sequence[str]) -> None:
    """Skip where the machine allows no such namespace."""
    if shutil.which("unshare") is None or subprocess.run([*command, "true"]).returncode:
        pytest.skip("needs unshare and ip, and the right to make namespaces")


@pytest.mark.deploy
def test_all_workers_and_a_search_in_an_unusual_environment(tmp_path: Path) -> None:
    """Cases: no usable /dev/shm; a path with spaces and ü under LC_ALL=C; an odd TZ; a proxy; a
    HOME that cannot be written."""
    require(NO_SHM)
    folder = tmp_path / "für  zwei"
    folder.mkdir()
    (tmp_path / "file").touch()
    file = folder / "stack.env"
    shell = {
        **dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy"), "http://127.0.0.1:9"),
        **dict.fromkeys(("no_proxy", "NO_PROXY", "no_grpc_proxy"), ""),
        **dict.fromkeys(("LANG", "LC_ALL", "LC_CTYPE"), "C"),
        "TZ": "XYZ-13:45",
        "XDG_CACHE_HOME": str(user_cache().parent),
        "HOME": str(tmp_path / "file" / "nobody"),
    }
    corpus = folder / "corpus.jsonl"
    corpus.write_text('{"_id": "ü", "text": "how to open a gzip file"}\n', encoding="utf-8")
    command = [sys.executable, "-m", "retrail_cli"]
    environment = os.environ | shell | {"RETRAIL_ENV_FILE": str(file)}

    def retrail(*arguments: str) -> str:
        return subprocess.run(
            [*NO_SHM, *command, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
            timeout=200,
        ).stdout.decode()

    options = ("--env-file", str(file))
    with retrail_up(folder, *options, before=NO_SHM, **shell) as process:
        eventually(lambda: file.exists() or process.poll() is not None, 240, "environment file")
        assert file.exists(), process.communicate()[0]
        assert "Searches find them." in retrail("documents", "load", "--wait", str(corpus))
        assert json.loads(retrail("search", "gzip", "--json"))["hits"][0]["doc_id"] == "ü"
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


def test_a_machine_without_the_loopback_of_ipv4_is_one_line(tmp_path: Path) -> None:
    require(IPV6_ONLY)
    with retrail_up(tmp_path, "--without-workers", before=IPV6_ONLY) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.splitlines()[-1].startswith("Error: Cannot listen on 127.0.0.1: ")
    assert "Traceback" not in output


@pytest.mark.integration
def test_up_in_an_unusual_shell_prints_no_secret(tmp_path: Path) -> None:
    """Cases: http_proxy without NO_PROXY; LANG=C in a folder with ü; a HOME that does not exist;
    secrets without --env-file."""
    folder = tmp_path / "für"
    folder.mkdir()
    shell = {
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY"), "http://127.0.0.1:9"),
        **dict.fromkeys(("no_proxy", "NO_PROXY", "no_grpc_proxy"), ""),
        **dict.fromkeys(("LANG", "LC_ALL", "LC_CTYPE"), "C"),
        "XDG_CACHE_HOME": str(user_cache().parent),
        "HOME": str(tmp_path / "nobody"),
        "RETRAIL_JUDGE_API_KEY": "hush-hush",
    }
    with retrail_up(folder, "--without-workers", **shell) as process:
        assert process.stdout is not None
        seen = ""
        for line in process.stdout:
            seen += line
            if line.startswith("Ctrl-C"):
                break
        process.send_signal(signal.SIGINT)
        seen += process.communicate(timeout=60)[0]
    assert process.returncode == 0, seen
    assert "ready; settings for other shells" in seen
    assert "# Not shown: RETRAIL_JUDGE_API_KEY" in seen
    assert "hush-hush" not in seen


def test_a_cache_that_cannot_be_made_is_one_line(tmp_path: Path, milvus: str) -> None:
    """Case: HOME that does not exist."""
    (tmp_path / "file").touch()
    shell = {"HOME": str(tmp_path / "file" / "nobody"), "XDG_CACHE_HOME": ""}
    with retrail_up(tmp_path, "--without-workers", RETRAIL_MILVUS_URI=milvus, **shell) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in output
    assert "Set XDG_CACHE_HOME to another folder." in output
