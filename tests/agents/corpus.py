"""The documents of scripted agents, their retriever, and tools over it that publish nothing."""

import json

from tests.serving.fakes import FakeRetriever

TEXTS = {
    "csv": "Write rows of a table to a file in the CSV format.",
    "gzip": "Open a gzip file with gzip.open, in binary or text mode.",
    "json": "Encode and decode JavaScript object notation.",
    "sqlite": "Open a connection to a database in a file.",
    "tar": "Read and write archives of the tar format, also compressed.",
    "zip": "Read archives of the ZIP format, and write them.",
}


def retriever() -> FakeRetriever:
    """Ranks by common words."""
    return FakeRetriever(TEXTS)


def search(query: str, k: int = 4) -> str:
    """Find documents; JSON with their ids, best first."""
    hits = [{"doc_id": hit.doc_id, "title": hit.title} for hit in retriever().search(query, k).hits]
    return json.dumps({"hits": hits})


def open_document(doc_id: str) -> str:
    """Read a whole document; JSON."""
    return json.dumps({"doc_id": doc_id, "text": TEXTS[doc_id]})


def found(query: str, k: int = 4) -> list[dict[str, str]]:
    """The hits of a search."""
    return list(json.loads(search(query, k))["hits"])
