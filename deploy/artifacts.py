"""The jars of Apache Kafka, pinned in ``kafka_artifacts.txt`` and fetched once per user."""

import functools
import hashlib
import importlib.util
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from deploy.errors import MissingToolError, StackError
from retrail_runtime.files import atomic_file, user_cache
from retrail_runtime.retry import retrying

LIST = Path(__file__).with_name("kafka_artifacts.txt")

DOWNLOADS = 8
"""Concurrent downloads."""
ANSWER_TIMEOUT = 15.0
"""Seconds without a byte after which a download is repeated."""
RETRY_SECONDS = 10.0
REPORT_SECONDS = 1.0

_OWN_KAFKA = "or set RETRAIL_KAFKA_BOOTSTRAP to a Kafka cluster of your own."


@dataclass(frozen=True, slots=True)
class Artifact:
    """One jar: its Maven coordinates (``group:artifact:version``) and its SHA-256 in hex."""

    coordinates: str
    sha256: str

    @property
    def file_name(self) -> str:
        """Its name in a Maven repository."""
        _, name, version = self.coordinates.split(":")
        return f"{name}-{version}.jar"


@functools.cache
def kafka_artifacts() -> tuple[Artifact, ...]:
    """All jars that Kafka needs to run."""
    lines = [line.split() for line in LIST.read_text().splitlines()]
    return tuple(Artifact(*line) for line in lines if line and line[0] != "#")


@functools.cache
def kafka_version() -> str:
    """Version of the Kafka in the list."""
    kafka = "org.apache.kafka:kafka_2.13:"
    (found,) = (one for one in kafka_artifacts() if one.coordinates.startswith(kafka))
    return found.coordinates.removeprefix(kafka)


def cache_folder() -> Path:
    """Where the jars are kept."""
    return user_cache() / f"kafka-{kafka_version()}"


def missing(artifacts: Sequence[Artifact], folder: Path) -> list[Artifact]:
    """The artifacts that the folder lacks; files in it are complete."""
    there = {path.name for path in folder.glob("*.jar")}
    return [one for one in artifacts if one.file_name not in there]


def kafka_jars(announce: Callable[[str], object]) -> list[Path]:
    """Kafka's jars; fetches those that the user's cache lacks.

    Raises:
        MissingToolError, StackError: as :func:`fetch`.
    """
    folder = cache_folder()
    fetch(f"Apache Kafka {kafka_version()}", kafka_artifacts(), folder, announce)
    return [folder / one.file_name for one in kafka_artifacts()]


def fetch(
    what: str,
    artifacts: Sequence[Artifact],
    folder: Path,
    announce: Callable[[str], object],
    repository: str | None = None,
) -> None:
    """Download artifacts that are not in ``folder``; each appears there once it is verified.

    Waits for another process that fetches into the folder. After an interruption the next call
    fetches the remaining artifacts.

    Args:
        what: name in messages.
        artifacts: of a Maven repository.
        folder: made if it is not there.
        announce: called with messages about the progress.
        repository: URL of the Maven repository; by default Maven's own.

    Raises:
        MissingToolError: something must be fetched and maven-artifact is not installed.
        StackError: a download failed, has another digest, or the folder cannot be written.
    """
    if not missing(artifacts, folder):
        return
    if importlib.util.find_spec("maven_artifact") is None:
        raise MissingToolError(
            f"{what} must be fetched once, but the package maven-artifact is not installed: "
            f"pip install 'retrail-server[local]', {_OWN_KAFKA}"
        )
    announce(f"Fetching {what}, once, into {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            for part in folder.glob(".*"):  # left by a process that was killed
                part.unlink()
            _download_all(what, missing(artifacts, folder), folder, announce, repository)
    except OSError as error:
        raise StackError(
            f"{folder} cannot be written: {error.strerror}. Set XDG_CACHE_HOME to another folder."
        ) from error


def _download_all(
    what: str,
    artifacts: Sequence[Artifact],
    folder: Path,
    announce: Callable[[str], object],
    repository: str | None,
) -> None:
    stop = threading.Event()
    reported = time.monotonic()
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        futures = [pool.submit(_download, one, folder, repository, stop) for one in artifacts]
        try:
            for number, future in enumerate(as_completed(futures), 1):
                future.result()
                if number == len(futures) or time.monotonic() > reported + REPORT_SECONDS:
                    reported = time.monotonic()
                    announce(f"Fetching {what}: {number} of {len(futures)} files")
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _download(
    artifact: Artifact, folder: Path, repository: str | None, stop: threading.Event
) -> None:
    """Put one artifact into the folder, unless ``stop`` is set."""
    import maven_artifact
    from requests import RequestException
    from requests.exceptions import ChunkedEncodingError, ConnectionError, Timeout

    downloader = maven_artifact.Downloader(*[repository] if repository else [])
    url = downloader.resolver.uri_for_artifact(maven_artifact.Artifact.parse(artifact.coordinates))

    def attempt() -> None:
        with (
            downloader.requestor.request(url, None, stream=True, timeout=ANSWER_TIMEOUT) as answer,
            atomic_file(folder / artifact.file_name) as file,
        ):
            digest = hashlib.sha256()
            for chunk in answer.iter_content(64 * 1024):
                if stop.is_set():
                    raise StackError(f"Fetching {artifact.coordinates} was stopped.")
                digest.update(chunk)
                file.write(chunk)
            if digest.hexdigest() != artifact.sha256:
                raise StackError(
                    f"{url} has the SHA-256 {digest.hexdigest()}; expected {artifact.sha256}. The "
                    "file was discarded: the transfer or the repository is damaged. Try again, "
                    f"use another network, {_OWN_KAFKA}"
                )

    transient = (ConnectionError, Timeout, ChunkedEncodingError)
    try:
        retrying(transient, seconds=RETRY_SECONDS, stop=stop)(attempt)
    except RequestException as error:
        raise StackError(
            f"{artifact.coordinates} cannot be fetched: {error}. The first start needs a Maven "
            "repository (HTTPS_PROXY is used if set). Fetched files are kept: try again when the "
            f"network is available, {_OWN_KAFKA}"
        ) from error
