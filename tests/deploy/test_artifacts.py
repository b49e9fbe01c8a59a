"""Fetching pinned artifacts from a Maven repository, here a folder served on the loopback."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deploy import artifacts
from deploy.artifacts import Artifact, fetch
from deploy.errors import MissingToolError, StackError
from tests.waiting import eventually

JARS = {f"org.example:jar{number}:1.{number}": f"jar {number}".encode() for number in range(12)}
LISTED = [Artifact(name, hashlib.sha256(data).hexdigest()) for name, data in JARS.items()]


class Repository:
    """A Maven repository over a folder that counts requests and can hold answers back."""

    def __init__(self, folder: Path) -> None:
        repository = self
        self.requests: list[str] = []
        self.answering = threading.Event()
        self.answering.set()

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments, directory=str(folder))

            def do_GET(self) -> None:
                repository.requests.append(self.path)
                repository.answering.wait(30)
                super().do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/maven2"


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    """A repository that has all of :data:`JARS`."""
    for one in LISTED:
        group, name, version = one.coordinates.split(":")
        file = tmp_path / "maven2" / group.replace(".", "/") / name / version / one.file_name
        file.parent.mkdir(parents=True)
        file.write_bytes(JARS[one.coordinates])
    found = Repository(tmp_path)
    thread = threading.Thread(target=found.server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.answering.set()
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def whole(folder: Path) -> bool:
    return {file.read_bytes() for file in folder.iterdir()} == set(JARS.values())


def test_the_list_of_kafka_is_whole() -> None:
    listed = artifacts.kafka_artifacts()
    assert len(listed) > 40
    assert len({one.file_name for one in listed}) == len(listed)
    assert all(re.fullmatch(r"[0-9a-f]{64}", one.sha256) for one in listed)
    assert all(re.fullmatch(r"[\w.-]+:[\w.-]+:[\w.-]+", one.coordinates) for one in listed)
    named = {one.coordinates.rpartition(":")[0] for one in listed}
    assert {"org.apache.kafka:kafka_2.13", "org.slf4j:slf4j-simple"} <= named
    assert artifacts.cache_folder().name == f"kafka-{artifacts.kafka_version()}"


def test_fetches_once_and_reports_progress(repository: Repository, tmp_path: Path) -> None:
    messages: list[str] = []
    folder = tmp_path / "cache" / "jars"
    fetch("Kafka", LISTED, folder, messages.append, repository.url)
    assert whole(folder)
    assert messages[0] == f"Fetching Kafka, once, into {folder}"
    assert messages[-1] == "Fetching Kafka: 12 of 12 files"
    assert len(repository.requests) == len(JARS)
    fetch("Kafka", LISTED, folder, messages.append, "http://no.such.host.invalid")
    assert len(repository.requests) == len(JARS)


def test_only_what_is_missing_is_fetched(repository: Repository, tmp_path: Path) -> None:
    folder = tmp_path / "jars"
    fetch("Kafka", LISTED, folder, print, repository.url)
    lost = folder / LISTED[3].file_name
    lost.unlink()
    repository.requests.clear()
    fetch("Kafka", LISTED, folder, print, repository.url)
    assert [Path(path).name for path in repository.requests] == [lost.name]
    assert whole(folder)


def test_a_jar_with_another_digest_is_refused(repository: Repository, tmp_path: Path) -> None:
    folder = tmp_path / "jars"
    changed = [*LISTED[:3], Artifact(LISTED[3].coordinates, "0" * 64)]
    with pytest.raises(
        StackError, match=rf"jar3-1\.3\.jar has the SHA-256 [0-9a-f]{{64}}; expected {'0' * 64}"
    ):
        fetch("Kafka", changed, folder, print, repository.url)
    assert LISTED[3].file_name not in names(folder)
    assert all(name.endswith(".jar") and not name.startswith(".") for name in names(folder))


def test_a_jar_that_the_repository_lacks(repository: Repository, tmp_path: Path) -> None:
    lacking = [*LISTED, Artifact("org.example:none:1", "0" * 64)]
    with pytest.raises(StackError, match=r"org\.example:none:1 cannot be fetched: 404"):
        fetch("Kafka", lacking, tmp_path / "jars", print, repository.url)


def test_offline(closed_port: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "RETRY_SECONDS", 0.1)
    with pytest.raises(StackError, match=r"cannot be fetched(.|\n)*RETRAIL_KAFKA_BOOTSTRAP"):
        fetch("Kafka", LISTED, tmp_path / "jars", print, f"http://{closed_port}")
    assert names(tmp_path / "jars") == []


def test_a_connection_that_fails_once_is_repeated(repository: Repository, tmp_path: Path) -> None:
    failed: list[str] = []
    answer = repository.server.finish_request

    def break_the_first(request: Any, client_address: Any) -> None:
        if failed:
            answer(request, client_address)
        else:
            failed.append("once")

    repository.server.finish_request = break_the_first  # type: ignore[method-assign]
    fetch("Kafka", LISTED, tmp_path / "jars", print, repository.url)
    assert whole(tmp_path / "jars")
    assert failed == ["once"]


FETCHING = """
import signal, sys
# A background job of a script ignores SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from deploy.artifacts import fetch
from tests.deploy.test_artifacts import LISTED
fetch("Kafka", LISTED, Path(sys.argv[1]), print, sys.argv[2])
"""


def fetching(folder: Path, repository: Repository) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", FETCHING, str(folder), repository.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ,
    )


def test_two_processes_at_once_fetch_each_file_once(repository: Repository, tmp_path: Path) -> None:
    folder = tmp_path / "jars"
    repository.answering.clear()
    processes = [fetching(folder, repository) for _ in range(3)]
    eventually(lambda: len(repository.requests) >= 8, 60, "downloads")
    repository.answering.set()
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
    assert whole(folder)
    assert len(repository.requests) == len(JARS)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_a_killed_process_fetched_is_whole_and_kept(
    repository: Repository, tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "jars"
    fetch("Kafka", LISTED[:2], folder, print, repository.url)
    repository.answering.clear()
    process = fetching(folder, repository)
    eventually(lambda: len(repository.requests) > 2, 60, "downloads")
    process.send_signal(number)
    if number == signal.SIGINT:
        repository.answering.set()
    process.communicate(timeout=60)
    assert process.returncode != 0
    repository.answering.set()
    kept = [name for name in names(folder) if not name.startswith(".")]
    assert {one.file_name for one in LISTED[:2]} <= set(kept)
    assert all((folder / name).read_bytes() in JARS.values() for name in kept)
    fetch("Kafka", LISTED, folder, print, repository.url)
    assert whole(folder)


def test_a_cache_that_cannot_be_written(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="cannot be written"):
        fetch("Kafka", LISTED, tmp_path / "file" / "jars", print, repository.url)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingToolError, match=r"pip install 'retrail-server\[local\]'"):
        fetch("Kafka", LISTED, tmp_path / "jars", print)


def test_one_real_artifact_arrives(tmp_path: Path) -> None:
    (small,) = (one for one in artifacts.kafka_artifacts() if ":slf4j-simple:" in one.coordinates)
    fetch("SLF4J", [small], tmp_path, print)
    assert (tmp_path / small.file_name).stat().st_size == 15_333
