"""What a refusal of object storage says: the reason, which setting, what to do."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fsspec import get_filesystem_class

from schemas.errors import ConfigurationError, RegistryError
from schemas.settings import Settings
from tests.refused import assert_refused
from tests.servers.s3_gateway import S3Gateway
from tests.servers.tls import signed
from tests.started_servers import on_s3
from trainer.registry import storage
from trainer.registry.registry import Registry

pytestmark = on_s3


@dataclass
class Servers:
    """S3 without and with TLS; a user ``reader`` may list and get."""

    plain: S3Gateway
    tls: S3Gateway
    folder: Path

    def foreign(self) -> Path:
        return signed(self.folder / "foreign", "other.test")[0]


@pytest.fixture
def servers(s3_url: str, s3_gateway: S3Gateway, s3_over_tls: S3Gateway, tmp_path: Path) -> Servers:
    return Servers(s3_gateway, s3_over_tls, tmp_path)


def _reader_of_another_bucket(servers: Servers) -> dict[str, Any]:
    name = f"reader-{secrets.token_hex(4)}"
    servers.plain.make_bucket(name)
    servers.plain.make_reader(name, name)
    return {"AWS_ACCESS_KEY_ID": name, "AWS_SECRET_ACCESS_KEY": name}


Change = Callable[[Servers], dict[str, Any]]
MISTAKES: dict[str, tuple[Change, str, str]] = {
    "wrong secret": (
        lambda s: {"AWS_SECRET_ACCESS_KEY": "wrong"},
        "SignatureDoesNotMatch",
        "Correct AWS_SECRET_ACCESS_KEY",
    ),
    "unknown key": (
        lambda s: {"AWS_ACCESS_KEY_ID": "nobody"},
        "InvalidAccessKeyId",
        "Correct AWS_ACCESS_KEY_ID",
    ),
    "no credentials": (
        lambda s: {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
        "Unable to locate credentials",
        "Set AWS_ACCESS_KEY_ID",
    ),
    "missing bucket": (
        lambda s: {"RETRAIL_REGISTRY": "s3://no-such-bucket/models"},
        "no bucket 'no-such-bucket'",
        "RETRAIL_REGISTRY",
    ),
    "missing right": (
        _reader_of_another_bucket,
        "Access Denied",
        "docs/security.md",
    ),
    "TLS against plaintext": (
        lambda s: {"AWS_ENDPOINT_URL": s.plain.client_address.replace("http", "https")},
        "WRONG_VERSION_NUMBER",
        "AWS_ENDPOINT_URL must begin with http://",
    ),
    "plaintext against TLS": (
        lambda s: {"AWS_ENDPOINT_URL": s.tls.client_address.replace("https", "http")},
        "Could not connect",
        "AWS_ENDPOINT_URL with http:// or https://",
    ),
    "foreign CA": (
        lambda s: {
            "AWS_ENDPOINT_URL": s.tls.client_address,
            "AWS_CA_BUNDLE": str(s.foreign()),
        },
        "CERTIFICATE_VERIFY_FAILED",
        "AWS_CA_BUNDLE",
    ),
    "no CA": (
        lambda s: {"AWS_ENDPOINT_URL": s.tls.client_address},
        "CERTIFICATE_VERIFY_FAILED",
        "AWS_CA_BUNDLE",
    ),
    "absent CA file": (
        lambda s: {"AWS_ENDPOINT_URL": s.tls.client_address, "AWS_CA_BUNDLE": "/absent.pem"},
        "cannot be read",
        "AWS_CA_BUNDLE",
    ),
    "wrong host": (
        lambda s: {"AWS_ENDPOINT_URL": "http://no-such-host.invalid"},
        "no-such-host.invalid",
        "AWS_ENDPOINT_URL",
    ),
}
"""Variables to change, Amazon's reason, and what to correct."""


def apply(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables."""
    # fsspec keeps a client, with the credentials that it found when it was made.
    get_filesystem_class("s3").clear_instance_cache()
    for name, value in changes.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("fresh_clients")
@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=list(MISTAKES))
def test_refused_request(
    mistake: tuple[Change, str, str],
    servers: Servers,
    s3_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change, reason, setting = mistake
    settings = Settings(data_dir=tmp_path / "data", registry=s3_url)
    Registry.of(settings).require(writing=False)
    changes = change(servers)
    apply(changes, monkeypatch)
    url = changes.get("RETRAIL_REGISTRY", s3_url)
    other = settings.model_copy(update={"registry": url})
    errors = (RegistryError, ConfigurationError)
    assert_refused(
        lambda: Registry.of(other).require(writing=False), reason, setting, errors=errors
    )


@pytest.mark.usefixtures("fresh_clients")
def test_a_user_who_may_only_read_cannot_publish(
    servers: Servers, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"reader-{secrets.token_hex(4)}"
    servers.plain.make_reader(name, s3_url.split("/")[2])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", name)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", name)
    monkeypatch.setattr(storage, "_tried", set[str]())
    registry = Registry.of(Settings(data_dir=tmp_path / "data", registry=s3_url))
    registry.require(writing=False)
    with pytest.raises(RegistryError, match=r"denies permission to create .*AccessDenied.* put"):
        registry.require(writing=True)
