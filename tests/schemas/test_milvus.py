"""TLS and token: the settings, and real servers that are behind them."""

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from deploy.errors import ToolMissing
from deploy.milvus_standalone import MilvusStandalone
from deploy.milvus_wheel import require_platform
from schemas.errors import ConfigurationError, MilvusUnavailable
from schemas.milvus import connect
from schemas.settings import Settings
from tests.waiting import eventually


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    settings = Settings(
        milvus_uri="https://127.0.0.1:1", milvus_tls_cafile=tmp_path / "nowhere.pem"
    )
    with pytest.raises(ConfigurationError, match=r"TLS_CAFILE names .*nowhere\.pem.*No such file"):
        connect(settings)


def test_certificates_need_an_https_uri(tmp_path: Path) -> None:
    settings = Settings(milvus_uri="http://127.0.0.1:1", milvus_tls_cafile=tmp_path / "ca.pem")
    with pytest.raises(ConfigurationError, match="RETRAIL_MILVUS_URI begin with https"):
        connect(settings)


def test_a_client_certificate_needs_its_key(tmp_path: Path) -> None:
    certificate = tmp_path / "client.pem"
    certificate.write_text("")
    settings = Settings(milvus_uri="https://127.0.0.1:1", milvus_tls_certfile=certificate)
    with pytest.raises(ConfigurationError, match=r"needs all of .*TLS_KEYFILE"):
        connect(settings)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Of a server called milvus.test, signed by itself; and its key."""
    files = tmp_path / "server.pem", tmp_path / "server.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=milvus.test"),
            *("-addext", "subjectAltName=DNS:milvus.test"),
            *("-out", str(files[0]), "-keyout", str(files[1])),
        ],
        check=True,
        capture_output=True,
    )
    return files


@pytest.fixture
def behind_tls(milvus: str, certificate: tuple[Path, Path]) -> Iterator[str]:
    """Address of a TLS end in front of the server."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*certificate)
    server.set_alpn_protocols(["h2"])
    inner = urlsplit(milvus)
    loop = asyncio.new_event_loop()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside, out = await asyncio.open_connection(inner.hostname, inner.port)
        await asyncio.gather(copy(reader, out), copy(inside, writer), return_exceptions=True)

    listening = loop.run_until_complete(asyncio.start_server(carry, "127.0.0.1", 0, ssl=server))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    open_still = asyncio.all_tasks(loop)
    for task in open_still:
        task.cancel()
    if open_still:
        loop.run_until_complete(asyncio.wait(open_still))
    loop.close()


def test_a_server_is_reached_if_its_certificate_is_trusted(
    behind_tls: str, certificate: tuple[Path, Path]
) -> None:
    trusting = Settings(
        milvus_uri=behind_tls,
        milvus_tls_cafile=certificate[0],
        milvus_tls_server_name="milvus.test",
    )
    client = connect(trusting)
    assert isinstance(client.list_collections(), list)
    client.close()


def test_a_server_with_an_unknown_certificate_is_refused(behind_tls: str) -> None:
    with pytest.raises(MilvusUnavailable, match="does not answer"):
        connect(Settings(milvus_uri=behind_tls), timeout=2)


@pytest.mark.faults
def test_a_standalone_server_with_tls_asks_for_a_token(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    try:
        require_platform()
    except ToolMissing as error:
        pytest.skip(str(error))
    server = MilvusStandalone(
        tmp_path / "milvus",
        tmp_path / "milvus.log",
        options={
            "authorization_enabled": "true",
            "tls_mode": "1",
            "server_pem_path": str(certificate[0]),
            "server_key_path": str(certificate[1]),
        },
    )
    server.launch()
    nobody = Settings(
        milvus_uri=f"https://{server.address}",
        milvus_tls_cafile=certificate[0],
        milvus_tls_server_name="milvus.test",
    )
    root = nobody.model_copy(update={"milvus_token": SecretStr("root:Milvus")})
    stranger = nobody.model_copy(update={"milvus_token": SecretStr("root:wrong")})

    def reached() -> bool:
        try:
            connect(root).close()
        except MilvusUnavailable:
            return False
        return True

    try:
        eventually(reached, 90, "an answer")
        for settings in (nobody, stranger):
            with pytest.raises(MilvusUnavailable, match="RETRAIL_MILVUS_TOKEN"):
                connect(settings)
    finally:
        server.kill()
