"""Long texts are cut into parts that cover them, at good places, the same way every time."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from retrail_cli.documents.loading import Chunking, Load, OnTopic, chunk_of, chunks, parts
from schemas.documents import Document, read_change
from schemas.errors import InputError

words = st.sampled_from(
    ["one", "two.", "three", "four!", "\n", "\n\n", "五。", "é", "a-b", "x" * 40]
)
texts = st.lists(words, max_size=120).map(" ".join)
sizes = st.integers(1, 30)


def bare(text: str) -> str:
    return re.sub(r"\s", "", text)


@given(texts.filter(bare), sizes)
def test_without_overlap_nothing_is_lost_or_repeated(text: str, size: int) -> None:
    found = parts(text, Chunking(size, 0))
    assert bare("".join(found)) == bare(text)
    assert all(part in text for part in found)


@given(texts.filter(bare), sizes, st.integers(0, 15))
def test_overlapping_parts_are_pieces_in_their_order(text: str, size: int, overlap: int) -> None:
    how = Chunking(size, min(overlap, size // 2))
    position = -1
    for part in parts(text, how):
        position = text.index(part, position + 1)
    assert bare(text).endswith(bare(parts(text, how)[-1]))


@given(texts.filter(bare), texts, sizes)
def test_what_is_appended_changes_only_the_end(text: str, more: str, size: int) -> None:
    how = Chunking(size, size // 4)
    before = parts(text, how)
    assert parts(f"{text} {more}", how)[: len(before) - 1] == before[:-1]


def test_lengths_are_bounded_also_without_spaces() -> None:
    for text in ("word " * 1000, "字" * 1000, "x" * 16_000, "!" * 1000):
        found = parts(text, Chunking(100, 0))
        assert len(found) == 10


def test_cuts_are_made_at_paragraphs_before_sentences_before_lines() -> None:
    how = Chunking(9, 0)
    assert parts("a b c d e f g\n\nh. i j", how)[0] == "a b c d e f g"
    assert parts("a b c d e f. g\nh i j k", how)[0] == "a b c d e f."
    assert parts("a b c d e f g\nh i j k l", how)[0] == "a b c d e f g"
    assert parts("a\n\nb c d e f g h i j k l", how)[0] == "a\n\nb c d e f g h i"
    assert parts("a b c d e f g h i j 2.71828 k", Chunking(12, 0))[0] == "a b c d e f g h i j"


def test_the_end_of_a_part_comes_again() -> None:
    assert parts("a b c d e f g h", Chunking(4, 2)) == ["a b c d", "c d e f", "e f g h"]


def test_chunks_are_numbered_from_0_also_the_only_one() -> None:
    document = Document(doc_id="d", title="T", text="a b c d e", url="https://d", tenant="t")
    assert list(chunks(document, Chunking(3, 0))) == [
        Document(doc_id="d#0", title="T", text="a b c", url="https://d", tenant="t"),
        Document(doc_id="d#1", title="T", text="d e", url="https://d", tenant="t"),
    ]
    assert [c.doc_id for c in chunks(document, Chunking(10, 0))] == ["d#0"]
    assert [c.text for c in chunks(Document(doc_id="d", text=" \n"), Chunking(3, 0))] == [" \n"]
    with pytest.raises(ValidationError):
        list(chunks(Document(doc_id="d" * 511, text="a"), Chunking(3, 0)))


@pytest.mark.parametrize(
    ("doc_id", "wanted"),
    [("a#0", ("a", 0)), ("a#b#10", ("a#b", 10)), ("a#01", None), ("a#", None), ("a", None)],
)
def test_ids_of_chunks_are_recognised(doc_id: str, wanted: object) -> None:
    assert chunk_of(doc_id) == wanted


def test_an_overlap_that_never_ends_is_refused() -> None:
    with pytest.raises(InputError, match="by 5 at most, not by 6"):
        Chunking(10, 6)


def test_a_tenant_is_that_of_the_document_else_that_of_the_load() -> None:
    todo = Load(OnTopic(), prefix="p/", tenant="acme")
    given = [Document(doc_id="a", text="x"), Document(doc_id="b", text="x", tenant="other")]
    sent = [record for document in given for record in todo.records(document, None)]
    found = [read_change(record.key, record.value).value for record in sent]
    assert [(one.doc_id, one.owner) for one in found if one] == [("p/a", "acme"), ("p/b", "other")]
    # Whose it is alone makes it another document.
    again = Load(todo.there, prefix="p/")
    assert [record.key for one in given for record in again.records(one, None)] == [b"p/a"]
