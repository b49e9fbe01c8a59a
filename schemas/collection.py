"""The Milvus collection of a release, and its names.

A collection is a function of (documents, model): one build per release. The alias is named after
the retriever, and follows the ``live`` release.
"""

from collections.abc import Mapping
from dataclasses import dataclass

VECTOR_FIELD = "embedding"
ID_FIELD = "doc_id"
TEXT_FIELD = "text"
TITLE_FIELD = "title"
HASH_FIELD = "content_hash"

METRIC = "COSINE"
"""Milvus reports it as a similarity: the higher, the nearer, at most 1."""

MAX_ID_BYTES = 2048
"""VARCHAR counts bytes: 512 characters of a document id are at most this in UTF-8."""

MAX_TEXT_BYTES = 65_535
"""Milvus' largest VARCHAR. A longer text is cut in the collection, and whole on the topic."""

MAX_HASH_BYTES = 32

VERSION_PROPERTY = "retrail.model_version"
BUILD_PROPERTY = "retrail.build_id"
LOCATION_PROPERTY = "retrail.model_location"
DIGEST_PROPERTY = "retrail.model_digest"
SERVED_PROPERTY = "retrail.served"


def collection_name(retriever: str, version: int) -> str:
    """``<retriever>_v<version>``."""
    return f"{retriever}_v{version}"


def version_of(retriever: str, collection: str) -> int | None:
    """The version that a collection's name carries; ``None`` for a collection of another."""
    number = collection.removeprefix(f"{retriever}_v")
    return int(number) if number != collection and number.isdecimal() else None


@dataclass(frozen=True, slots=True)
class Build:
    """One build of a release: what a collection's properties say of it.

    Attributes:
        build_id: random; a collection that was lost and made again has another one.
        location, digest: of the model in the registry, so that whoever finds the collection can
            load the one model whose vectors it holds.
        served: the alias pointed here once, so it is kept for a while after it is replaced.
    """

    collection: str
    version: int
    build_id: str
    location: str
    digest: str
    served: bool = False

    @classmethod
    def read(cls, collection: str, properties: Mapping[str, str]) -> "Build | None":
        """``None``: the collection was not made by Retrail."""
        version = properties.get(VERSION_PROPERTY, "")
        build_id = properties.get(BUILD_PROPERTY, "")
        if not version.isdecimal() or not build_id:
            return None
        return cls(
            collection=collection,
            version=int(version),
            build_id=build_id,
            location=properties.get(LOCATION_PROPERTY, ""),
            digest=properties.get(DIGEST_PROPERTY, ""),
            served=properties.get(SERVED_PROPERTY) == "true",
        )

    def properties(self) -> dict[str, str]:
        """As they are written when the collection is created."""
        return {
            VERSION_PROPERTY: str(self.version),
            BUILD_PROPERTY: self.build_id,
            LOCATION_PROPERTY: self.location,
            DIGEST_PROPERTY: self.digest,
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
