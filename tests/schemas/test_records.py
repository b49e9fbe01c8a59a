"""Records of each topic: written, read back, deleted, malformed."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import documents, events
from schemas.base import Change
from schemas.documents import Document, may_see, seen_by
from schemas.events import OutcomeReport

Read = Callable[[bytes | None, bytes | None], Change]
READERS: list[Read] = [documents.read_change, events.read_outcome]


def test_a_document_is_read_as_it_was_written() -> None:
    document = Document(doc_id="ä", title="T", text="x")
    assert documents.read_change(*documents.encode(document)) == Change("ä", document)
    assert documents.read_change(*documents.encode_deletion("ä")) == Change("ä", None)


names = st.text("ab", max_size=2)


@given(names.filter(bool), names.filter(bool))
def test_a_tenant_sees_its_documents_and_everyones_and_no_others(one: str, two: str) -> None:
    document = Document(doc_id="d", text="x", tenant=one)
    change = documents.read_change(*documents.encode(document))
    assert change.value == document
    assert may_see(two, document.owner) is (one == two)
    assert not may_see("", document.owner)
    for tenant in (one, two, "", None):
        assert may_see(tenant, Document(doc_id="d", text="x").owner)
        assert tenant is None or seen_by(tenant) == (("", tenant) if tenant else ("",))
    assert may_see(None, document.owner)


@given(names, names, st.sampled_from("xy"), st.sampled_from("xy"))
def test_a_fingerprint_differs_with_text_and_owner(one: str, two: str, a: str, b: str) -> None:
    prints = [
        Document(doc_id="d", text=text, tenant=owner or None).fingerprint()
        for owner, text in ((one, a), (two, b))
    ]
    assert (prints[0] == prints[1]) is ((one, a) == (two, b))
    assert Document(doc_id="d", text=a).fingerprint() == documents.content_hash(a)


def test_a_document_of_an_empty_tenant_is_invalid() -> None:
    found = documents.read_change(b"d", b'{"doc_id":"d","text":"x","tenant":""}')
    assert (found.key, found.value) == ("d", None)
    assert b"tenant" not in Document(doc_id="d", text="x").to_json()


def test_an_outcome_is_read_as_it_was_written() -> None:
    report = OutcomeReport(trajectory_id="t", outcome="correct", reported_at=datetime.now(UTC))
    assert events.read_outcome(b"t", report.to_json()) == Change("t", report)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("value", [None, b""])
def test_an_empty_value_deletes(read: Read, value: bytes | None) -> None:
    assert read(b"a", value) == Change("a", None)


@pytest.mark.parametrize(
    ("key", "value", "name", "complaint"),
    [
        (b"a", b"{", "a", "JSON"),
        (b"a", b'{"doc_id": "a"}', "a", "text: Field required"),
        (b"a", b'{"doc_id": "a", "text": ""}', "a", "text"),
        (b"a", b'{"doc_id": "b", "text": "x"}', "a", "the key is 'a'"),
        (b"a", b'{"doc_id": "a", "text": "x", "more": 1}', "a", "more"),
        (b"\xff", b'{"doc_id": "b", "text": "x"}', None, "not UTF-8"),
        (None, b'{"doc_id": "b", "text": "x"}', None, "no key"),
        (b"", b"", None, "no key"),
        (b"a", b'{"doc_id": "%s", "text": "x"}' % (b"d" * 513), "a", "doc_id"),
    ],
)
def test_an_invalid_document_removes_the_one_of_its_key(
    key: bytes | None, value: bytes, name: str | None, complaint: str
) -> None:
    change = documents.read_change(key, value)
    assert (change.key, change.value) == (name, None)
    assert complaint in change.error


@pytest.mark.parametrize("read", READERS)
@given(key=st.none() | st.binary(max_size=8), value=st.none() | st.binary(max_size=64))
def test_any_bytes_are_read_without_an_exception(
    read: Read, key: bytes | None, value: bytes | None
) -> None:
    change = read(key, value)
    assert change.value is None
    assert change.error or (change.key and not value)
