"""TLS and token: the settings, and real servers that are behind them."""

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import SecretStr

from deploy.errors import MissingToolError
from retrail_runtime.milvus import connect
from schemas.errors import ConfigurationError, MilvusUnavailableError
from schemas.settings import Settings
from tests.servers.milvus_standalone import MilvusStandalone
from tests.servers.milvus_wheel import require_platform
from tests.servers.tls import Pair, as_client, signed, tls_end
from tests.waiting import eventually


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    settings = Settings(
        milvus_uri="https://127.0.0.1:1", milvus_tls_cafile=tmp_path / "nowhere.pem"
    )
    with pytest.raises(ConfigurationError, match=r"TLS_… names .*nowhere\.pem.*No such file"):
        connect(settings)


def test_certificates_need_an_https_uri(tmp_path: Path) -> None:
    settings = Settings(milvus_uri="http://127.0.0.1:1", milvus_tls_cafile=tmp_path / "ca.pem")
    with pytest.raises(ConfigurationError, match="RETRAIL_MILVUS_URI must begin with https"):
        connect(settings)


def test_a_client_certificate_needs_its_key(tmp_path: Path) -> None:
    certificate = tmp_path / "client.pem"
    certificate.write_text("")
    settings = Settings(milvus_uri="https://127.0.0.1:1", milvus_tls_certfile=certificate)
    with pytest.raises(ConfigurationError, match=r"needs all of .*TLS_KEYFILE"):
        connect(settings)


@pytest.fixture
def certificate(tmp_path: Path) -> Pair:
    """Of a server called milvus.test, signed by itself."""
    return signed(tmp_path / "server", "milvus.test")


class Certificates(NamedTuple):
    """Certificates of both ends for mutual TLS."""

    authority: Pair
    server: Pair
    client: Pair
    refused: Pair


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """Of one authority, but for the refused's."""
    folder = tmp_path / "certificates"
    authority = signed(folder, "authority.test")
    return Certificates(
        authority,
        signed(folder, "milvus.test", authority),
        signed(folder, "retrail.test", authority),
        signed(folder, "refused.test"),
    )


@pytest.fixture
def behind_tls(milvus: str, certificate: Pair) -> Iterator[str]:
    """Address of a TLS end with the certificate."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*certificate)
    with tls_end(milvus, server) as uri:
        yield uri


@pytest.fixture
def asking_for_certificates(milvus: str, certificates: Certificates) -> Iterator[str]:
    """Address of a TLS end that lets only clients of the authority in."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.authority[0])
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(*certificates.server)
    with tls_end(milvus, server) as uri:
        yield uri


def test_a_server_is_reached_if_its_certificate_is_trusted(
    behind_tls: str, certificate: Pair
) -> None:
    client = connect(as_client(behind_tls, certificate[0]))
    assert isinstance(client.list_collections(), list)
    client.close()


def test_a_server_with_an_unknown_certificate_is_refused(behind_tls: str) -> None:
    with pytest.raises(ConfigurationError, match=r"VERIFY_FAILED.*RETRAIL_MILVUS_TLS_CAFILE"):
        connect(Settings(milvus_uri=behind_tls), timeout=2)


def test_a_server_with_mutual_tls_accepts_certificates_of_its_authority(
    asking_for_certificates: str, certificates: Certificates
) -> None:
    lets_in_only_clients_of_its_authority(asking_for_certificates, certificates)


def lets_in_only_clients_of_its_authority(uri: str, certificates: Certificates) -> None:
    trusted = certificates.authority[0]
    client = connect(as_client(uri, trusted, certificates.client))
    assert isinstance(client.list_collections(), list)
    # They do not reuse the connection of the accepted client.
    for refused in (None, certificates.refused):
        with pytest.raises(ConfigurationError, match="RETRAIL_MILVUS_TLS_CERTFILE"):
            connect(as_client(uri, trusted, refused), timeout=2)
    client.close()


@pytest.fixture
def standalone_over_tls(tmp_path: Path) -> Iterator[Callable[[Pair, Mapping[str, str]], str]]:
    """Starts a standalone server of the test's own; gives its address, which may not answer yet."""
    try:
        require_platform()
    except MissingToolError as error:
        pytest.skip(str(error))
    with ExitStack() as at_end:

        def start(own: Pair, options: Mapping[str, str]) -> str:
            certificate = {"server_pem_path": str(own[0]), "server_key_path": str(own[1])}
            server = MilvusStandalone(
                tmp_path / "milvus", tmp_path / "milvus.log", options={**certificate, **options}
            )
            server.launch()
            at_end.callback(server.kill)
            return f"https://{server.address}"

        yield start


def answers(settings: Settings) -> bool:
    try:
        connect(settings).close()
    except MilvusUnavailableError:
        return False
    return True


@pytest.mark.faults
def test_a_standalone_server_with_tls_requires_a_token(
    standalone_over_tls: Callable[[Pair, Mapping[str, str]], str], certificate: Pair
) -> None:
    uri = standalone_over_tls(certificate, {"authorization_enabled": "true", "tls_mode": "1"})
    anonymous = as_client(uri, certificate[0])
    root = anonymous.model_copy(update={"milvus_token": SecretStr("root:Milvus")})
    refused = anonymous.model_copy(update={"milvus_token": SecretStr("root:wrong")})
    eventually(lambda: answers(root), 90, "an answer")
    for settings in (anonymous, refused):
        with pytest.raises(ConfigurationError, match=r"UNAUTHENTICATED.*RETRAIL_MILVUS_TOKEN"):
            connect(settings)


@pytest.mark.faults
def test_a_standalone_server_with_mutual_tls_accepts_certificates_of_its_authority(
    standalone_over_tls: Callable[[Pair, Mapping[str, str]], str], certificates: Certificates
) -> None:
    authority = certificates.authority[0]
    uri = standalone_over_tls(certificates.server, {"tls_mode": "2", "ca_pem_path": str(authority)})
    own = as_client(uri, authority, certificates.client)
    eventually(lambda: answers(own), 90, "an answer")
    lets_in_only_clients_of_its_authority(uri, certificates)
