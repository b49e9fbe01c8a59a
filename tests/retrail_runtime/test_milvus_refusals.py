"""What a refusal says: the reason, which setting, what to do; on real servers."""

import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from pydantic import SecretStr

from consumers.indexing.milvus import Milvus
from retrail_runtime.milvus import Build, connect
from schemas.errors import ConfigurationError, MilvusUnavailableError
from schemas.settings import Settings
from serving.retriever import Retriever
from tests.refused import assert_refused
from tests.retrail_runtime.test_refusals import environment_of
from tests.servers.guarded_milvus import ROOT, GuardedMilvus

Change = Callable[[GuardedMilvus], dict[str, Any]]
MISTAKES: dict[str, tuple[Change, str, str]] = {
    "no token": (
        lambda s: {"milvus_token": None},
        "UNAUTHENTICATED: missing authorization",
        "RETRAIL_MILVUS_TOKEN",
    ),
    "wrong password": (
        lambda s: {"milvus_token": SecretStr("root:wrong")},
        "check username and password",
        "RETRAIL_MILVUS_TOKEN",
    ),
    "wrong token": (
        lambda s: {"milvus_token": SecretStr("wrong")},
        "check api key",
        "RETRAIL_MILVUS_TOKEN",
    ),
    "TLS against plaintext": (
        lambda s: {"milvus_uri": s.plain.replace("http", "https")},
        "WRONG_VERSION_NUMBER",
        "RETRAIL_MILVUS_URI must begin with http://",
    ),
    "plaintext against TLS": (
        lambda s: {"milvus_uri": s.tls.replace("https", "http"), "milvus_tls_cafile": None},
        "UNAVAILABLE",
        "RETRAIL_MILVUS_URI must begin with https://",
    ),
    "foreign CA": (
        lambda s: {"milvus_tls_cafile": s.other[0]},
        "CERTIFICATE_VERIFY_FAILED",
        "RETRAIL_MILVUS_TLS_CAFILE",
    ),
    "no CA": (
        lambda s: {"milvus_tls_cafile": None},
        "CERTIFICATE_VERIFY_FAILED",
        "RETRAIL_MILVUS_TLS_CAFILE",
    ),
    "absent CA file": (
        lambda s: {"milvus_tls_cafile": s.folder / "absent.pem"},
        "No such file",
        "RETRAIL_MILVUS_TLS_",
    ),
    "CA file without a certificate": (
        lambda s: {"milvus_tls_cafile": s.junk()},
        "security handshaker",
        "RETRAIL_MILVUS_TLS_CAFILE",
    ),
    "wrong name": (
        lambda s: {"milvus_tls_server_name": "other.test"},
        "Hostname Verification Check failed",
        "RETRAIL_MILVUS_TLS_SERVER_NAME",
    ),
    "no client certificate": (
        lambda s: {"milvus_uri": s.mutual},
        "UNAVAILABLE",
        "RETRAIL_MILVUS_TLS_CERTFILE",
    ),
    "foreign client certificate": (
        lambda s: {
            "milvus_uri": s.mutual,
            "milvus_tls_certfile": s.own[0],
            "milvus_tls_keyfile": s.own[1],
        },
        "UNAVAILABLE",
        "RETRAIL_MILVUS_TLS_CERTFILE",
    ),
}

mistaken = pytest.mark.parametrize("mistake", MISTAKES.values(), ids=list(MISTAKES))


@mistaken
def test_refused_connection(
    mistake: tuple[Change, str, str], guarded_milvus: GuardedMilvus
) -> None:
    change, reason, setting = mistake
    connect(guarded_milvus.trusting).close()
    settings = guarded_milvus.trusting.model_copy(update=change(guarded_milvus))
    assert_refused(lambda: connect(settings), reason, setting)


def test_a_host_that_does_not_exist(closed_port: str) -> None:
    for uri, reason in (
        ("http://no-such-host.invalid:19530", "lookup"),
        (f"http://{closed_port}", "Connection refused"),
    ):
        with pytest.raises(MilvusUnavailableError, match=f"{reason}.*RETRAIL_MILVUS_URI"):
            connect(Settings(milvus_uri=uri))


def test_a_proxy_that_closes_connections_is_no_refusal() -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.2)
        stop = threading.Event()

        def close_all() -> None:
            while not stop.is_set():
                with suppress(TimeoutError):
                    proxy.accept()[0].close()

        closing = threading.Thread(target=close_all)
        closing.start()
        try:
            for scheme in ("http", "https"):
                with pytest.raises(MilvusUnavailableError, match="does not answer"):
                    connect(Settings(milvus_uri=f"{scheme}://127.0.0.1:{proxy.getsockname()[1]}"))
        finally:
            stop.set()
            closing.join()


@pytest.fixture
def powerless(guarded_milvus: GuardedMilvus) -> Settings:
    """Of a user without any privilege."""
    name = f"u{secrets.token_hex(4)}"
    admin = connect(Settings(milvus_uri=guarded_milvus.plain, milvus_token=ROOT))
    admin.create_user(name, "Secret-1")
    admin.close()
    return Settings(
        milvus_uri=guarded_milvus.plain,
        milvus_token=SecretStr(f"{name}:Secret-1"),
        retriever=f"r{secrets.token_hex(4)}",
    )


def test_a_missing_privilege_is_named_at_once(
    powerless: Settings, guarded_milvus: GuardedMilvus
) -> None:
    wanted = r"PERMISSION_DENIED: Privilege\w+: permission deny.*RETRAIL_MILVUS_TOKEN lacks a priv"
    build = Build(f"{powerless.retriever}_v1", 1, "id", "m", "d")
    began = time.monotonic()
    with pytest.raises(ConfigurationError, match=wanted):
        Milvus(powerless).create(build, 8)
    # The collection exists, but this user may not search it.
    owner = powerless.model_copy(update={"milvus_token": ROOT})
    shell = Milvus(owner, vector_index="FLAT")
    shell.create(build, 8)
    shell.make_searchable(build)
    shell.swap(build)
    other = Milvus(powerless)
    with pytest.raises(ConfigurationError, match=wanted):
        other.swap(build)
    began = time.monotonic()
    with (
        Retriever(powerless, load=lambda *_: None, seconds=60) as retriever,  # type: ignore[arg-type, return-value]
        pytest.raises(MilvusUnavailableError, match=wanted),
    ):
        retriever.open("a")
    assert time.monotonic() - began < 5
    shell.drop(build)


@pytest.mark.parametrize("command", [["worker", "index"], ["serve", "--port", "0"], ["mcp"]])
def test_every_process_ends_with_the_reason(
    command: list[str], guarded_milvus: GuardedMilvus, settings: Settings, topics: Any
) -> None:
    wrong = {"milvus_uri": guarded_milvus.plain, "milvus_token": SecretStr("root:wrong")}
    ended = subprocess.run(
        [sys.executable, "-m", "retrail_cli", *command],
        env=environment_of(settings.model_copy(update=wrong)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert "check username and password" in last
    assert "RETRAIL_MILVUS_TOKEN" in last
