"""The Milvus collection of a release, its fields and its names.

A collection is a function of (documents, model, search mode). A release has one build, and for a
time a second one beside it after `retrail index rebuild`. The alias is named after the retriever,
and follows the ``live`` release.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from schemas import SearchMode

VECTOR_FIELD = "embedding"
ID_FIELD = "doc_id"
TEXT_FIELD = "text"
TITLE_FIELD = "title"
HASH_FIELD = "content_hash"
LEXICAL_FIELD = "lexical"
"""What the encoder reads, as text; of hybrid builds."""
BM25_FIELD = "bm25"
"""Sparse vectors that Milvus computes from :data:`LEXICAL_FIELD`; of hybrid builds."""

METRIC = "COSINE"
"""Milvus reports it as a similarity: the higher, the nearer, at most 1."""

MAX_ID_BYTES = 2048
"""VARCHAR counts bytes: 512 characters of a document id are at most this in UTF-8."""

MAX_TEXT_BYTES = 65_535
"""Milvus' largest VARCHAR. A longer text is cut in the collection, and whole on the topic."""

MAX_HASH_BYTES = 32

BM25_METRIC = "BM25"

VERSION_PROPERTY = "retrail.model_version"
BUILD_PROPERTY = "retrail.build_id"
LOCATION_PROPERTY = "retrail.model_location"
DIGEST_PROPERTY = "retrail.model_digest"
SERVED_PROPERTY = "retrail.served"
SEARCH_PROPERTY = "retrail.search"
SUCCESSOR_PROPERTY = "retrail.successor"


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
        build_id: random; a collection that was lost and made again has another one.
        location, digest: of the model in the registry, so that whoever finds the collection can
            load the one model whose vectors it holds.
        served: the alias pointed here once, so it is kept for a while after it is replaced.
        search: how it can be searched, and is.
        successor: id of the build that is to replace this one; empty if none was asked for.
    """

    collection: str
    version: int
    build_id: str
    location: str
    digest: str
    served: bool = False
    search: SearchMode = "dense"
    successor: str = ""

    @classmethod
    def read(cls, collection: str, properties: Mapping[str, str]) -> "Build | None":
        """``None``: the collection was not created by Retrail."""
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
            )
        except (KeyError, ValueError):
            return None

    def properties(self) -> dict[str, str]:
        """As they are written when the collection is created."""
        return {
            VERSION_PROPERTY: str(self.version),
            BUILD_PROPERTY: self.build_id,
            LOCATION_PROPERTY: self.location,
            DIGEST_PROPERTY: self.digest,
            SEARCH_PROPERTY: self.search,
        }


def cut(text: str, limit: int = MAX_TEXT_BYTES) -> str:
    """The longest beginning of ``text`` that has at most ``limit`` bytes in UTF-8.

    >>> cut("née", 2)
    'n'
    """
    if len(text) * 4 <= limit:
        return text
    encoded = text.encode()
    return text if len(encoded) <= limit else encoded[:limit].decode(errors="ignore")
