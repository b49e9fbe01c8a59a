"""The images of deploy/Containerfile, built and run without a registry of images."""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from deploy.processes import free_ports
from schemas.settings import Settings
from schemas.topics import Topics
from tests.deploy.images import PODMAN, RUN, done
from tests.streams.topics import pairs_of
from tests.tiny_model import write_tiny_model
from tests.waiting import eventually

MEGABYTES = {"streams": 450, "client-example": 200}
DOCUMENTS = [
    {"doc_id": "gzip", "text": "Open a gzip file with gzip.open, in binary or text mode."},
    {"doc_id": "zipfile", "text": "Read and write archives of the ZIP format."},
]

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]
Build = Callable[[str], str]


@contextmanager
def container(
    tag: str, *arguments: str, volumes: Sequence[str] = (), **settings: str
) -> Iterator[subprocess.Popen[str]]:
    """A container in the foreground; its process takes signals for it."""
    variables = [f"--env=RETRAIL_{name.upper()}={value}" for name, value in settings.items()]
    variables += [f"--volume={volume}" for volume in volumes]
    started = subprocess.Popen(
        [*RUN, "--rm", *variables, tag, *arguments],
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
def test_an_image_is_small_and_not_of_root(image: Build, target: str) -> None:
    [found] = json.loads(done("podman", "image", "inspect", image(target)))
    assert found["Size"] < MEGABYTES[target] * 1e6
    assert found["Config"]["User"] == "10001:10001"
    assert found["Config"]["Labels"]["org.opencontainers.image.version"] == "0.1"
    shell = (*RUN, "--rm", "--entrypoint", "sh", image(target), "-c")
    packages = "/opt/retrail/lib/python3*/site-packages"
    assert done(*shell, f"id -u; ls {packages}/retrail/__pycache__").startswith("10001\n")
    assert "torch" not in done(*shell, f"ls {packages}")
    assert "Read-only" in done(*shell, "touch /opt/x 2>&1 || true")


def test_an_agent_in_a_container_gives_pairs(
    image: Build, settings: Settings, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
    shared = {"kafka_bootstrap": settings.kafka_bootstrap, "topic_prefix": settings.topic_prefix}
    with container(image("streams"), "topics", "create", **shared, partitions="2") as creating:
        assert creating.wait(60) == 0
    judge_port, mine_port = map(str, free_ports(2))
    with (
        container(
            image("streams"), "worker", "judge", **shared, partitions="2", metrics_port=judge_port
        ) as judge,
        container(
            image("streams"), "worker", "mine", **shared, partitions="2", metrics_port=mine_port
        ) as mine,
    ):
        names = [f"--env=RETRAIL_{name.upper()}={value}" for name, value in shared.items()]
        done(
            *(*RUN, "--rm", *names, f"--volume={tmp_path}:/corpus:ro", image("client-example")),
            *("/corpus/corpus.jsonl", "how do I open a gzip file"),
        )
        eventually(lambda: pairs_of(settings), 90, "a pair", interval=0.5)
        assert pairs_of(settings)[0].positive == "gzip"
        assert Topics.of(settings).labelled_pairs.startswith(settings.topic_prefix)
        for worker in (judge, mine):
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0


def test_the_health_check_and_the_exit_status_of_a_worker(
    image: Build, settings: Settings, topics: Topics, closed_port: str
) -> None:
    with container(image("streams"), "worker", "mine", kafka_bootstrap=closed_port) as lost:
        assert lost.wait(60) == 69
    [port] = free_ports(1)
    name = f"retrail-{settings.topic_prefix}"
    shared = {
        "kafka_bootstrap": settings.kafka_bootstrap,
        "topic_prefix": settings.topic_prefix,
        "metrics_port": str(port),
    }
    variables = [f"--env=RETRAIL_{key.upper()}={value}" for key, value in shared.items()]
    done(*RUN, "--detach", "--name", name, *variables, image("streams"))
    try:

        def healthy() -> bool:
            check = [*PODMAN, "healthcheck", "run", name]
            return subprocess.run(check, capture_output=True).returncode == 0

        eventually(healthy, 60, "health", interval=1.0)
    finally:
        done(*PODMAN, "rm", "--force", "--time", "20", name)


def test_images_with_models_share_their_packages_and_run(
    image: Build, settings: Settings, topics: Topics, tmp_path: Path
) -> None:
    layers = []
    for target in ("trainer", "serve"):
        [found] = json.loads(done("podman", "image", "inspect", image(target)))
        print(f"{target}: {found['Size'] / 1e6:,.0f} MB")
        assert found["Config"]["User"] == "10001:10001"
        layers.append(found["RootFS"]["Layers"])
        assert "Usage: retrail" in done(*RUN, "--rm", image(target), "--help")
    # All but the layer of our own code, which is a few megabytes.
    assert layers[0][:-1] == layers[1][:-1]
    tmp_path.chmod(0o755)
    port, metrics_port = map(str, free_ports(2))
    model = write_tiny_model(tmp_path / "model")
    shared = {
        "kafka_bootstrap": settings.kafka_bootstrap,
        "milvus_uri": settings.milvus_uri,
        "topic_prefix": settings.topic_prefix,
        "retriever": settings.retriever,
        "partitions": "2",
        "model": "/model",
        "registry": "/registry",
    }
    registry = tmp_path / "registry"
    registry.mkdir()
    registry.chmod(0o777)
    volumes = [f"{model}:/model:ro", f"{registry}:/registry"]
    serving = ("serve", "--port", port)
    with (
        container(image("trainer"), volumes=volumes, **shared, metrics_port=metrics_port) as train,
        container(image("serve"), *serving, volumes=volumes, **shared, metrics_port=port) as serve,
    ):
        for address in (metrics_port, port):
            eventually(lambda at=address: alive(at), 120, f"answer on {address}", interval=0.5)
        for process in (train, serve):
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def alive(port: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=10).status_code == 200
    except httpx.HTTPError:
        return False
