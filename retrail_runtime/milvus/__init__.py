"""The Milvus client, and the names of a release's collection, its fields and its properties.

A collection is a function of (documents, model, search mode). A release has one build, and a second
one beside it during `retrail index rebuild`. The alias has the retriever's name and follows the
``live`` release.

What pymilvus 3.0.2 does against Milvus Lite 3.2.2 (observed) and Milvus 2.x (documented):

- A call on a missing collection raises code 100 (2.x: also 4); on a missing alias 100 (2.x: 1600);
  on a collection that is not loaded 101. A server that is down raises code 2 at once, and a client
  made before works again when the server is back.
- ``ids=`` of ``get`` and ``delete`` and the query iterator put ids into the filter unescaped, so an
  id with a quote or a backslash breaks the call: :func:`ids_filter` escapes them.
- Its loggers write every failed call with a traceback to standard error, also expected ones: they
  are silenced here, the exceptions carry the same.
- Client certificates are ignored unless all three files are given.

May import ``schemas`` and the rest of ``retrail_runtime``.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import grpc
from pymilvus import MilvusClient, MilvusException
from pymilvus.exceptions import ParamError

from retrail_runtime.milvus import refusals
from schemas import SearchMode
from schemas.documents import seen_by
from schemas.errors import ConfigurationError, MilvusUnavailableError, NoTenantsError
from schemas.settings import Settings

VECTOR_FIELD = "embedding"
ID_FIELD = "doc_id"
TEXT_FIELD = "text"
TITLE_FIELD = "title"
URL_FIELD = "url"
"""Empty if the document has none."""
TENANT_FIELD = "tenant"
"""The owner of the document; empty: it is everyone's."""
HASH_FIELD = "content_hash"
BM25_FIELD = "bm25"
"""Sparse vectors of hybrid builds, which Milvus computes."""

METRIC = "COSINE"
"""Milvus reports it as a similarity: the higher, the nearer, at most 1."""
BM25_METRIC = "BM25"

VERSION_PROPERTY = "retrail.model_version"
BUILD_PROPERTY = "retrail.build_id"
LOCATION_PROPERTY = "retrail.model_location"
DIGEST_PROPERTY = "retrail.model_digest"
SERVED_PROPERTY = "retrail.served"
SEARCH_PROPERTY = "retrail.search"
SUCCESSOR_PROPERTY = "retrail.successor"
INDEXED_PROPERTY = "retrail.indexed"
TENANTS_PROPERTY = "retrail.tenants"

FAILURES = (MilvusException, grpc.RpcError)
"""What a call raises. Deadlines, refused tokens and oversized messages are gRPC's own errors."""

CALL_TIMEOUT = 30.0
"""Seconds for one call; without it pymilvus repeats an unanswered one for minutes."""

HYBRID_SINCE = (2, 5)
"""The first Milvus that computes BM25. Milvus Lite has its own version numbers; 3.2, the oldest
that is installed, computes it."""

_MISSING = (4, 100, 1600)
_NOT_LOADED = (101, 103, 106)
_DOWN = (2, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})


def collection_name(retriever: str, version: int, rebuild: str = "") -> str:
    """``<retriever>_v<version>``, and ``<retriever>_v<version>_<build id>`` of a rebuild."""
    return f"{retriever}_v{version}" + (f"_{rebuild}" if rebuild else "")


def version_of(retriever: str, collection: str) -> int | None:
    """The version in a collection's name; ``None`` for a collection of another retriever."""
    found = re.fullmatch(rf"{re.escape(retriever)}_v(\d+)(_[0-9a-f]{{8}})?", collection, re.ASCII)
    return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class Build:
    """One build of a release, as the properties of its collection describe it.

    Attributes:
        build_id: random; a collection that was lost and created again has another one.
        location, digest: of the model in the registry whose vectors it holds.
        served: whether the alias ever pointed here; then it is kept for a while after its
            replacement.
        search: the mode in which it is searched.
        successor: id of the build that will replace this one; empty if none was requested.
        indexed: the share of the records of ``documents`` that its rows show, "12%"; the leading
            index worker writes it while 1% or more are missing, and "all" afterwards.
        tenants: whether its rows have tenants; those of older collections have none.
    """

    collection: str
    version: int
    build_id: str
    location: str
    digest: str
    served: bool = False
    search: SearchMode = "dense"
    successor: str = ""
    indexed: str = field(default="", compare=False)
    tenants: bool = True

    @property
    def progress(self) -> str:
        """How far the build is; empty if nearly all documents are indexed.

        >>> Build("c", 1, "b", "m", "d", indexed="12%").progress
        '12% of all documents indexed'
        """
        return f"{self.indexed} of all documents indexed" if self.indexed.endswith("%") else ""

    @classmethod
    def read(cls, collection: str, properties: Mapping[str, str]) -> "Build | None":
        """The build of a collection; ``None``: Retrail did not create it."""
        try:
            return cls(
                collection=collection,
                version=int(properties[VERSION_PROPERTY]),
                build_id=properties[BUILD_PROPERTY],
                location=properties[LOCATION_PROPERTY],
                digest=properties[DIGEST_PROPERTY],
                served=properties.get(SERVED_PROPERTY) == "true",
                search="hybrid" if properties[SEARCH_PROPERTY] == "hybrid" else "dense",
                successor=properties.get(SUCCESSOR_PROPERTY, ""),
                indexed=properties.get(INDEXED_PROPERTY, ""),
                tenants=properties.get(TENANTS_PROPERTY) == "true",
            )
        except (KeyError, ValueError):
            return None

    def properties(self) -> dict[str, str]:
        """The properties of a new collection."""
        return {
            VERSION_PROPERTY: str(self.version),
            BUILD_PROPERTY: self.build_id,
            LOCATION_PROPERTY: self.location,
            DIGEST_PROPERTY: self.digest,
            SEARCH_PROPERTY: self.search,
            TENANTS_PROPERTY: str(self.tenants).lower(),
        }


def connect(settings: Settings, *, timeout: float = 5.0) -> MilvusClient:
    """A client of a Milvus that has answered; safe to share between threads.

    Raises:
        MilvusUnavailableError: nothing answers within ``timeout`` seconds.
        ConfigurationError: Milvus refuses the connection, or the TLS settings cannot be used.
    """
    tls, options = _tls(settings), _grpc_options(settings.milvus_uri)
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    token = settings.milvus_token.get_secret_value() if settings.milvus_token else ""
    try:
        client = MilvusClient(
            uri=settings.milvus_uri,
            token=token,
            timeout=timeout,
            grpc_options=options,
            # Otherwise it reuses any connection of this process to the same address with the same
            # token, also closed ones, whatever its certificates.
            dedicated=bool(tls),
            **tls,
        )
        client.list_collections(timeout=timeout)
    except OSError as error:
        raise ConfigurationError(
            f"RETRAIL_MILVUS_TLS_… names {error.filename}, which cannot be read: {error.strerror}."
        ) from error
    except FAILURES as error:
        reason = refusals.reason(settings, tls, options) or error_message(error)
        if advice := refusals.advice(reason):
            raise ConfigurationError(
                f"Milvus at {settings.milvus_uri} refuses the connection: {reason}. {advice}"
            ) from error
        raise MilvusUnavailableError(
            f"Milvus does not answer at {settings.milvus_uri} ({reason}). Start a local stack with "
            "`retrail up`, or set RETRAIL_MILVUS_URI (and RETRAIL_MILVUS_TOKEN, if it requires "
            "one) to a running Milvus."
        ) from error
    return client


def require_search(settings: Settings, server_version: str) -> None:
    """Check that a server supports the search mode of the settings.

    A version without numbers (a server built from a commit) is accepted.

    Raises:
        ConfigurationError: hybrid search is set, and the server is too old for it.
    """
    found = re.search(r"(\d+)\.(\d+)", server_version)
    if settings.index_search != "hybrid" or found is None:
        return
    if (int(found[1]), int(found[2])) < HYBRID_SINCE:
        raise ConfigurationError(
            "RETRAIL_INDEX_SEARCH=hybrid needs a Milvus that computes BM25, "
            f"{'.'.join(map(str, HYBRID_SINCE))} or newer; the one at {settings.milvus_uri} is "
            f"{server_version}. Use a newer Milvus, or set RETRAIL_INDEX_SEARCH=dense."
        )


def error_message(error: BaseException) -> str:
    """The message of Milvus or gRPC."""
    if isinstance(error, MilvusException):
        return str(error.message)
    details = getattr(error, "details", None)
    return str(details() if callable(details) else error)


def may_pass(error: BaseException) -> bool:
    """Whether a failed call may succeed when it is repeated unchanged."""
    refused = bool(refusals.refusal_of(error))
    invalid = isinstance(error, ParamError)
    return not (invalid or refused or is_missing(error) or is_not_loaded(error))


def is_missing(error: BaseException) -> bool:
    """Whether a call failed because its collection or alias does not exist."""
    return refusals.code_of(error) in _MISSING


def is_not_loaded(error: BaseException) -> bool:
    """Whether a call failed because its collection is not in memory."""
    return refusals.code_of(error) in _NOT_LOADED


def is_down(error: BaseException) -> bool:
    """Whether a call failed because no server answered."""
    return refusals.code_of(error) in _DOWN


def literal(text: str) -> str:
    """A string in a filter expression."""
    return f'"{text.translate(_ESCAPES)}"'


def ids_filter(ids: Iterable[str]) -> str:
    """The filter that matches exactly these document ids."""
    return f"{ID_FIELD} in [{', '.join(map(literal, ids))}]"


def tenant_filter(build: Build, tenant: str | None) -> str:
    """The filter that matches the documents that a tenant may see; empty: it is not limited.

    Raises:
        NoTenantsError: the rows of the build have no tenants.
    """
    if tenant is None:
        return ""
    if not build.tenants:
        raise NoTenantsError(
            f"The collection {build.collection} was built before its documents had tenants. Build "
            "it again: `retrail index rebuild`.",
            collection=build.collection,
        )
    return f"{TENANT_FIELD} in [{', '.join(map(literal, seen_by(tenant)))}]"


def _tls(settings: Settings) -> dict[str, Any]:
    """pymilvus' options for a Milvus behind TLS; empty for one without.

    Raises:
        ConfigurationError: the settings contradict each other.
    """
    authority, certificate, key = files = (
        settings.milvus_tls_cafile,
        settings.milvus_tls_certfile,
        settings.milvus_tls_keyfile,
    )
    if urlsplit(settings.milvus_uri).scheme != "https":
        if any(files):
            raise ConfigurationError(
                f"RETRAIL_MILVUS_TLS_… is set, but {settings.milvus_uri} is reached without TLS. "
                "RETRAIL_MILVUS_URI must begin with https://."
            )
        return {}
    options: dict[str, Any] = {"secure": True, "server_name": settings.milvus_tls_server_name}
    if certificate or key:
        if not all(files):
            raise ConfigurationError(
                "A client certificate needs all of RETRAIL_MILVUS_TLS_CAFILE, "
                "RETRAIL_MILVUS_TLS_CERTFILE and RETRAIL_MILVUS_TLS_KEYFILE."
            )
        return options | {
            "ca_pem_path": str(authority),
            "client_pem_path": str(certificate),
            "client_key_path": str(key),
        }
    return options | ({"server_pem_path": str(authority)} if authority else {})


def _grpc_options(uri: str) -> dict[str, int]:
    """On the loopback no proxy (``http_proxy``), and no ping every 10 s: Milvus Lite closes the
    connection after some of them."""
    local = urlsplit(uri).hostname in ("127.0.0.1", "localhost", "::1")
    return {"grpc.keepalive_time_ms": 600_000, "grpc.enable_http_proxy": 0} if local else {}
