"""Why Milvus refuses a connection or a call: the reason of gRPC or Milvus, and what to correct.

pymilvus 3.0.2 reports every failed connection as "illegal connection params or server unavailable".
So the reason is that of a request of our own on the same address, with the same credentials.
"""

import base64
import re
import socket
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc

from schemas.settings import Settings

METHOD = "/milvus.proto.milvus.MilvusService/ShowCollections"
SECONDS = 2.0
_CLOSED = r"Socket closed|Connection reset"
ATTEMPTS = 3
"""A server that restarts closes connections, too; one that refuses them closes every one."""

REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)

ADVICE: tuple[tuple[str, str], ...] = (
    (r"^UNAUTHENTICATED", "Correct RETRAIL_MILVUS_TOKEN: a token, or user:password."),
    (
        r"^PERMISSION_DENIED",
        "The user of RETRAIL_MILVUS_TOKEN lacks a privilege: docs/security.md has those of every "
        "role.",
    ),
    (
        r"Hostname Verification Check failed",
        "The server's certificate does not contain its name: the host in RETRAIL_MILVUS_URI, or "
        "RETRAIL_MILVUS_TLS_SERVER_NAME if that is set.",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "RETRAIL_MILVUS_TLS_CAFILE must have signed the server's certificate.",
    ),
    (
        r"WRONG_VERSION_NUMBER",
        "The server answers without TLS: RETRAIL_MILVUS_URI must begin with http://, or have "
        "another port.",
    ),
    (
        r"Failed to create security handshaker",
        "No certificate or key can be read in RETRAIL_MILVUS_TLS_CAFILE, "
        "RETRAIL_MILVUS_TLS_CERTFILE or RETRAIL_MILVUS_TLS_KEYFILE.",
    ),
    (
        # A proxy closes the handshake, too, while the server behind it starts.
        r"https: (?!.*Handshake read failed)"
        r".*(Socket closed|Connection reset|CERTIFICATE_REQUIRED|alert|TSI_DATA_CORRUPTED)",
        "The server wants a client certificate that it trusts: correct RETRAIL_MILVUS_TLS_CERTFILE "
        "and RETRAIL_MILVUS_TLS_KEYFILE.",
    ),
    (
        r"answers in TLS",
        "The server uses TLS: RETRAIL_MILVUS_URI must begin with https://, or have another port.",
    ),
)
"""Patterns of reasons, the first that matches counts, and what to do."""


def advice(reason: str) -> str:
    """What to do about a reason; empty: the server did not refuse, it does not answer."""
    return next((text for pattern, text in ADVICE if re.search(pattern, reason)), "")


def reason(settings: Settings, tls: Mapping[str, Any], options: Mapping[str, int]) -> str:
    """Why a request fails, in gRPC's or Milvus' words; empty if it does not.

    Args:
        tls: options for pymilvus.
        options: of the channel.
    """
    address = urlsplit(settings.milvus_uri)
    target = address.netloc if address.port else f"{address.netloc}:19530"
    for _ in range(ATTEMPTS):
        found = _asked(settings, target, tls, options)
        if not re.search(_CLOSED, found):
            return found
        if address.scheme == "http" and _answers_in_tls(target):
            return f"{found}, and it answers in TLS"
        time.sleep(0.2)
    return found


def refusal_of(error: BaseException) -> str:
    """Why Milvus refused a call, and what to do; empty: it did not refuse it."""
    if code_of(error) not in REFUSED:
        return ""
    text = _text(error)
    return f"{text}. {advice(text)}"


def code_of(error: BaseException) -> Any:
    """The code of Milvus or gRPC; ``None``: the error has none."""
    found = getattr(error, "code", None)
    return found() if callable(found) else found


def _asked(
    settings: Settings, target: str, tls: Mapping[str, Any], options: Mapping[str, int]
) -> str:
    scheme, token = urlsplit(settings.milvus_uri).scheme, settings.milvus_token
    name = tls.get("server_name")
    given = [*options.items(), *([("grpc.ssl_target_name_override", name)] if name else [])]
    if scheme == "https":
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(*_files(tls)), given)
    else:
        channel = grpc.insecure_channel(target, given)
    header = base64.b64encode(token.get_secret_value().encode()).decode() if token else ""
    metadata = [("authorization", header)] if header else []
    with channel:
        try:
            channel.unary_unary(METHOD)(b"", timeout=SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            return _text(error, f"{scheme}: ")
    return ""


def _answers_in_tls(target: str) -> bool:
    """Whether it does; a proxy closes connections, too, while the server behind it starts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = target.rpartition(":")
    try:
        address = host.strip("[]"), int(port)
        with socket.create_connection(address, SECONDS) as plain, context.wrap_socket(plain):
            return True
    except OSError:
        return False


def _files(tls: Mapping[str, Any]) -> list[bytes | None]:
    """Authorities, key and certificate, from pymilvus' options."""
    names = (("ca_pem_path", "server_pem_path"), ("client_key_path",), ("client_pem_path",))
    paths = (next((tls[name] for name in some if name in tls), None) for some in names)
    return [Path(path).read_bytes() if path else None for path in paths]


def _text(error: Any, scheme: str = "") -> str:
    """Status and details in one line."""
    status, details = error.code(), " ".join(str(error.details()).split()).rstrip(".")
    prefix = f"{status.name}: " if status in REFUSED else scheme
    return f"{prefix}{re.sub(r'^.*last error: ', '', details)}"
