"""Real servers for integration tests: Apache Kafka, Milvus and S3, started at the first use.

Milvus is Lite's server; tests marked by ``tests.started_servers`` run on the standalone one too.
Each server is one child of the test session, on a free loopback port over a temporary folder; it
stops at the end of the session, and the kernel kills it if the session itself is killed.
"""

import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from deploy import topics as topics_module
from deploy.errors import MissingToolError
from deploy.kafka import KafkaBroker
from deploy.milvus import MilvusLite
from deploy.processes import Server
from retrail_runtime.metrics import DEPENDENCY_UP
from schemas.errors import RetrailError
from schemas.settings import Settings
from schemas.topics import Topics
from tests.servers.guarded_milvus import GuardedMilvus
from tests.servers.guarded_milvus import guarded_milvus as guarded
from tests.servers.milvus_standalone import MilvusStandalone
from tests.servers.milvus_wheel import require_platform
from tests.servers.s3_gateway import S3Gateway, require_tools
from tests.servers.secured_kafka import SecuredKafka
from tests.servers.tls import signed


def pytest_configure() -> None:
    """Tests see no settings of the shell that runs them; idle torch threads leave the cores."""
    for name in [name for name in os.environ if name.startswith("RETRAIL_")]:
        del os.environ[name]
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


SERVERS = frozenset(
    (
        *("kafka", "milvus", "milvus_uri", "standalone", "guarded_milvus", "s3_gateway"),
        *("broker", "breakable", "secured"),
    )
)
"""Fixtures that start a server: tests that use them are integration tests."""
KINDS = frozenset(("integration", "browser", "deploy", "dist", "faults"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use a server's fixture; a test has one kind at most."""
    for item in items:
        kinds = {mark.name for mark in item.iter_markers()} & KINDS
        assert len(kinds) <= 1, f"{item.nodeid} is marked {kinds}: it may be of one kind"
        callspec = getattr(item, "callspec", None)
        on_s3 = callspec is not None and "s3" in callspec.params.values()
        if not kinds and (on_s3 or SERVERS & set(getattr(item, "fixturenames", ()))):
            item.add_marker("integration")


@pytest.fixture(autouse=True)
def no_dependency_is_away() -> None:
    """Forget calls of earlier tests, which made this process not ready."""
    DEPENDENCY_UP.clear()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of a real Apache Kafka broker."""
    folder = tmp_path_factory.mktemp("kafka")
    broker = KafkaBroker(folder, folder / "kafka.log")
    yield from _running(broker)


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """A real Apache Kafka with SASL_SSL, mutual TLS and ACLs."""
    folder = tmp_path_factory.mktemp("secured")
    broker = SecuredKafka(folder, folder / "kafka.log")
    for _ in _running(broker):
        yield broker


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a real Milvus Lite server."""
    folder = tmp_path_factory.mktemp("milvus")
    server = MilvusLite(folder, folder / "milvus.log")
    yield from _running(server)


@pytest.fixture(scope="session")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a real standalone Milvus; the test is skipped where that does not run."""
    _skip_without(require_platform)
    folder = tmp_path_factory.mktemp("standalone")
    server = MilvusStandalone(folder, folder / "milvus.log")
    for uri in _running(server):
        yield uri
        # Its data is thrown away: stopping in good order would take it up to 20 s.
        server.kill()


@pytest.fixture(scope="session")
def guarded_milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedMilvus]:
    """A real standalone Milvus that requires a token, also behind TLS."""
    _skip_without(require_platform)
    with guarded(tmp_path_factory.mktemp("guarded")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Gateway]:
    """A real S3 server; the test is skipped where there is no Go to build it with."""
    _skip_without(require_tools)
    folder = tmp_path_factory.mktemp("s3")
    gateway = S3Gateway(folder, folder / "s3.log")
    for _ in _running(gateway):
        yield gateway


@pytest.fixture(scope="session")
def s3_over_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Gateway]:
    """The same behind TLS, with a certificate of the host "s3.test" that it signed itself."""
    _skip_without(require_tools)
    folder = tmp_path_factory.mktemp("s3-tls")
    gateway = S3Gateway(folder, folder / "s3.log")
    gateway.certificate = signed(folder, "s3.test")
    for _ in _running(gateway):
        yield gateway


@pytest.fixture
def s3_url(s3_gateway: S3Gateway, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a prefix in an empty bucket of its own; the AWS variables are set for it."""
    for name, value in s3_gateway.environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{secrets.token_hex(4)}"
    s3_gateway.make_bucket(bucket)
    return f"s3://{bucket}/models"


@pytest.fixture
def milvus_uri(request: pytest.FixtureRequest) -> str:
    """The Milvus of this test: Lite's server, unless ``tests.started_servers`` chooses."""
    uri: str = request.getfixturevalue(getattr(request, "param", "milvus"))
    return uri


@pytest.fixture
def settings(kafka: str, milvus_uri: str, tmp_path: Path) -> Settings:
    """Settings of a new installation on both servers: tests share no topic and no collection."""
    name = f"t{secrets.token_hex(4)}_"
    return Settings(
        kafka_bootstrap=kafka,
        milvus_uri=milvus_uri,
        topic_prefix=name,
        retriever=f"{name}retriever",
        data_dir=tmp_path / "data",
        partitions=2,
    )


@pytest.fixture
def topics(settings: Settings) -> Topics:
    """The topics of ``settings``, created."""
    topics_module.ensure(settings)
    return Topics.of(settings)


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    """Restore the configuration of logging: commands that run in this process change its level."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _skip_without(require: Callable[[], object]) -> None:
    try:
        require()
    except MissingToolError as error:
        pytest.skip(str(error))


def _running(server: Server) -> Iterator[str]:
    try:
        server.start()
    except RetrailError as error:
        pytest.fail(f"{server.name} is needed for this test and cannot start: {error}", False)
    try:
        yield server.client_address
    finally:
        server.stop()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker that a test may stop."""
    broker = KafkaBroker(tmp_path / "kafka", tmp_path / "kafka.log")
    broker.start()
    yield broker
    if broker.child is not None and broker.child.running:
        os.kill(broker.child.pid, signal.SIGCONT)
    broker.stop()


@pytest.fixture
def closed_port() -> Iterator[str]:
    """An address where nothing listens during the test."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"
