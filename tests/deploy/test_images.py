"""The images of deploy/Containerfile, built and run without a registry of images.

Debian's buildah, podman and runc, and a base by debootstrap. Not built here: `trainer` and `serve`,
whose torch takes gigabytes.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.processes import free_ports
from retrail_runtime.files import user_cache
from schemas.settings import Settings
from schemas.topics import Topics
from tests.streams.topics import pairs_of
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
TOOLS = ("buildah", "podman", "runc", "debootstrap")
BASE = "localhost/retrail-test-base"
MEGABYTES = {"streams": 450, "client-example": 200}
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
RUN = (
    *("podman", "--runtime", "runc", "run", "--privileged", "--network=host"),
    *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"),
    *("--read-only", "--tmpfs", "/tmp"),
)
"""What runs on these machines; an installation drops capabilities instead of `--privileged`."""
DOCUMENTS = [
    {"doc_id": "gzip", "text": "Open a gzip file with gzip.open, in binary or text mode."},
    {"doc_id": "zipfile", "text": "Read and write archives of the ZIP format."},
]

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]


def done(*command: str | Path, **options: Any) -> str:
    """Output of a command that succeeds."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1500, **options)
    assert ended.returncode == 0, f"{command}\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}"
    return ended.stdout


@pytest.fixture(scope="session")
def base() -> str:
    """A Debian with Python; made once."""
    if os.geteuid() != 0 or not all(shutil.which(tool) for tool in TOOLS):
        pytest.skip(f"needs root and {', '.join(TOOLS)} (apt-get install)")
    archive = user_cache() / "debian-bookworm-python.tar"
    if not archive.is_file():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
            root = Path(folder) / "root"
            packages = "--include=python3,python3-venv,ca-certificates"
            done("debootstrap", "--variant=minbase", packages, "bookworm", root)
            for unneeded in ("var/cache/apt", "var/lib/apt/lists"):
                shutil.rmtree(root / unneeded)
            part = Path(folder) / "base.tar"
            done("tar", "-C", root, "--numeric-owner", "-cf", part, ".")
            part.rename(archive)
    done("podman", "import", archive, BASE)
    return BASE


@pytest.fixture(scope="session")
def images(base: str) -> dict[str, str]:
    """Image by target."""
    # Behind a proxy that has its own certificate, pip needs this machine's.
    shared = [path for path in (CERTIFICATES, Path("/etc/pip.conf")) if path.is_file()]
    built = {target: f"localhost/retrail-test-{target}" for target in MEGABYTES}
    for target, image in built.items():
        done(
            *("buildah", "bud", "--isolation", "chroot", "--format", "docker", "--layers"),
            *("-f", "deploy/Containerfile", "--target", target, "-t", image),
            *("--build-arg", f"BASE={base}", "--build-arg", "VERSION=0.1"),
            *(f"--volume={path}:{path}:ro" for path in shared),
            ".",
            cwd=ROOT,
        )
    return built


@contextmanager
def container(image: str, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """A container in the foreground; its process takes signals for it."""
    variables = [f"--env=RETRAIL_{name.upper()}={value}" for name, value in settings.items()]
    started = subprocess.Popen(
        [*RUN, "--rm", *variables, image, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield started
    finally:
        started.terminate()
        started.communicate(timeout=60)


@pytest.mark.parametrize("target", MEGABYTES)
def test_an_image_is_small_and_not_of_root(images: dict[str, str], target: str) -> None:
    [found] = json.loads(done("podman", "image", "inspect", images[target]))
    assert found["Size"] < MEGABYTES[target] * 1e6
    assert found["Config"]["User"] == "10001:10001"
    assert found["Config"]["Labels"]["org.opencontainers.image.version"] == "0.1"
    shell = (*RUN, "--rm", "--entrypoint", "sh", images[target], "-c")
    packages = "/opt/retrail/lib/python3*/site-packages"
    assert done(*shell, f"id -u; ls {packages}/retrail/__pycache__").startswith("10001\n")
    assert "torch" not in done(*shell, f"ls {packages}")
    assert "Read-only" in done(*shell, "touch /opt/x 2>&1 || true")


def test_an_agent_in_a_container_gives_pairs(
    images: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
    shared = {"kafka_bootstrap": settings.kafka_bootstrap, "topic_prefix": settings.topic_prefix}
    with container(images["streams"], "topics", "create", **shared, partitions="2") as creating:
        assert creating.wait(60) == 0
    judge_port, mine_port = map(str, free_ports(2))
    with (
        container(
            images["streams"], "worker", "judge", **shared, partitions="2", metrics_port=judge_port
        ) as judge,
        container(
            images["streams"], "worker", "mine", **shared, partitions="2", metrics_port=mine_port
        ) as mine,
    ):
        names = [f"--env=RETRAIL_{name.upper()}={value}" for name, value in shared.items()]
        done(
            *(*RUN, "--rm", *names, f"--volume={tmp_path}:/corpus:ro", images["client-example"]),
            *("/corpus/corpus.jsonl", "how do I open a gzip file"),
        )
        eventually(lambda: pairs_of(settings), 90, "a pair", interval=0.5)
        assert pairs_of(settings)[0].positive == "gzip"
        assert Topics.of(settings).labelled_pairs.startswith(settings.topic_prefix)
        for worker in (judge, mine):
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0


def test_the_health_check_and_the_exit_status_of_a_worker(
    images: dict[str, str], settings: Settings, topics: Topics, closed_port: str
) -> None:
    with container(images["streams"], "worker", "mine", kafka_bootstrap=closed_port) as lost:
        assert lost.wait(60) == 69
    [port] = free_ports(1)
    name = f"retrail-{settings.topic_prefix}"
    shared = {
        "kafka_bootstrap": settings.kafka_bootstrap,
        "topic_prefix": settings.topic_prefix,
        "metrics_port": str(port),
    }
    variables = [f"--env=RETRAIL_{key.upper()}={value}" for key, value in shared.items()]
    done(*RUN, "--detach", "--name", name, *variables, images["streams"])
    try:

        def healthy() -> bool:
            check = ["podman", "--runtime", "runc", "healthcheck", "run", name]
            return subprocess.run(check, capture_output=True).returncode == 0

        eventually(healthy, 60, "health", interval=1.0)
    finally:
        done("podman", "--runtime", "runc", "rm", "--force", "--time", "20", name)
