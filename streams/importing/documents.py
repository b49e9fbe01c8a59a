"""Which ids are documents: an id of a search's hit that is none may be replaced by one that is."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from schemas.documents import Document, content_hash
from streams.importing.results import Found

_PORTS = {"http": 80, "https": 443}


class Documents:
    """Ids of the documents, and their texts' digests; about 300 bytes of memory each."""

    def __init__(self, documents: Iterable[Document] = ()) -> None:
        self._ids: set[str] = set()
        self._by_content: dict[str, str] = {}
        for document in documents:
            self.put(document)

    def put(self, document: Document) -> None:
        """There is this document."""
        self._ids.add(document.doc_id)
        for text in {document.text, document.embedded_text()}:
            self._by_content[content_hash(text.strip())] = document.doc_id

    def remove(self, doc_id: str) -> None:
        """There is no such document any more."""
        self._ids.discard(doc_id)

    def __len__(self) -> int:
        return len(self._ids)

    def find(self, hit: Found) -> str | None:
        """The document that a hit is: by its id, by its other ids, by its whole text."""
        for name in (hit.doc_id, *hit.others):
            if name in self._ids:
                return name
        same = self._by_content.get(content_hash(hit.text.strip())) if hit.text else None
        return same if same in self._ids else None


def url_key(name: str) -> str | None:
    """What equal URLs have in common; nothing for what is none.

    Equal are two that differ in http or https, the default port, the fragment, a slash at the end.

    >>> url_key("https://Example.org:443/lamp/#history") == url_key("http://example.org/lamp")
    True
    """
    if "://" not in name:
        return None
    try:
        parts = urlsplit(name)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname:
        return None
    place = parts.hostname if port in (None, _PORTS[parts.scheme]) else f"{parts.hostname}:{port}"
    query = f"?{parts.query}" if parts.query else ""
    return f"{place}{parts.path.rstrip('/')}{query}"
