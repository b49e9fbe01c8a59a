"""The Milvus collection of a release, and its names.

A collection is a function of (documents, model): one build per release. The alias is named after
the retriever, and follows the ``live`` release.
"""

VECTOR_FIELD = "embedding"
ID_FIELD = "doc_id"
TEXT_FIELD = "text"
TITLE_FIELD = "title"
HASH_FIELD = "content_hash"

MAX_ID_BYTES = 2048
"""VARCHAR counts bytes: 512 characters of a document id are at most this in UTF-8."""

MAX_TEXT_BYTES = 65_535
"""Milvus' largest VARCHAR. A longer text is cut in the collection, and whole on the topic."""

VERSION_PROPERTY = "retrail.model_version"
BUILD_PROPERTY = "retrail.build_id"


def collection_name(retriever: str, version: int) -> str:
    """``<retriever>_v<version>``."""
    return f"{retriever}_v{version}"


def version_of(retriever: str, collection: str) -> int | None:
    """The version that a collection's name carries; ``None`` for a collection of another."""
    number = collection.removeprefix(f"{retriever}_v")
    return int(number) if number != collection and number.isdecimal() else None
