"""Documents, queries and judgements in files as people have them."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrail_runtime.corpus_files import (
    Fields,
    Judgement,
    LeftOut,
    Query,
    by_id,
    read_documents,
    read_judgements,
    read_queries,
)
from retrail_runtime.files import zstd
from schemas.documents import Document
from schemas.errors import InputError, InvalidRecordError

BOM = b"\xef\xbb\xbf"

CASE_07 = "\r\n".join(
    [
        '\ufeff{"_id": "bom1", "title": "first", "text": "The first line after a BOM."}',
        '{"_id": 3, "title": "", "text": "integer id document about ferries", "metadata": {}}',
        '{"_id": "t-null", "title": null, "text": "a null title about tides"}',
        '{"_id": "empty", "title": "", "text": ""}',
        '{"title": "no id", "text": "document without an id"}',
        '{"_id": "dup", "title": "", "text": "first copy of dup: lighthouse"}',
        '{"_id": "dup", "title": "", "text": "second copy of dup: windmill"}',
        r'{"_id": "sur", "title": "", "text": "a lone surrogate \ud800 inside"}',
        r'{"_id": "nul", "title": "", "text": "a NUL \u0000 inside the text about granite"}',
        r'{"_id": "nul\u0000id", "title": "", "text": "a NUL in the id"}',
        '{"_id": "https://example.org/a/?q=1&r=%20#frag", "title": "網頁", "text": "日本語の文書"}',
        r"""{"_id": "with space and \"quotes\" 'single' back\\slash %25 %", "text": "basalt"}""",
        r'{"_id": "line\nbreak\tid", "title": "", "text": "identifier with a line break"}',
        '{"_id": "../../etc/passwd", "title": "", "text": "identifier that looks like a path"}',
        '{"_id": " lead", "title": "", "text": "identifier with leading space about quartz"}',
        '{"_id": "3.0", "title": "", "text": "string three about marble"}',
        '{"_id": 3.0, "title": "", "text": "float id"}',
        '{"_id": "emoji🪨", "title": "🪨", "text": "🪨🪨🪨"}',
        '{"_id": "last-no-newline", "title": "", "text": "last line without newline about chalk"}',
    ]
)


def read(path: Path, *lines: str) -> list[Document | InvalidRecordError]:
    path.write_text("\n".join(lines))
    found = list(read_documents(path))
    numbers = [number for number, line in enumerate(lines, start=1) if line]
    assert [place for place, _ in found] == [f"{path}:{number}" for number in numbers]
    return [document for _, document in found]


def test_case_07_15_of_19_documents_and_four_are_named(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(CASE_07.encode())
    found = list(read_documents(path))
    documents = [value for _, value in found if isinstance(value, Document)]
    named = {place: str(value) for place, value in found if isinstance(value, InvalidRecordError)}
    assert (len(found), len(documents)) == (19, 15)
    assert named == {
        f"{path}:4": "the text is empty",
        f"{path}:5": "has no doc_id or _id or id; it has title, text",
        f"{path}:8": "not JSON (no low surrogate in string)",
        f"{path}:17": "the doc_id or _id or id is not a string but float",
    }
    assert documents[:3] == [
        Document(doc_id="bom1", title="first", text="The first line after a BOM."),
        Document(doc_id="3", text="integer id document about ferries"),
        Document(doc_id="t-null", text="a null title about tides"),
    ]
    ids = {document.doc_id for document in documents}
    assert {"nul\0id", "line\nbreak\tid", " lead", "3.0", "emoji🪨", "last-no-newline"} <= ids
    assert """with space and "quotes" 'single' back\\slash %25 %""" in ids


def test_of_equal_ids_the_last_one_counts_and_the_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(CASE_07.encode())
    left_out = LeftOut()
    documents = by_id(read_documents(path), lambda document: document.doc_id, left_out)
    assert documents["dup"].text == "second copy of dup: windmill"
    assert left_out.count == 5
    assert f"{path}:6: a later line has the same id" in left_out.messages()
    assert left_out.keys == {"empty"}


def test_case_08_gzip(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"_id":"z","title":"","text":"gzipped"}\n'))
    assert list(read_documents(path)) == [(f"{path}:1", Document(doc_id="z", text="gzipped"))]


@given(
    texts=st.lists(st.text(min_size=1).filter(str.strip), max_size=8),
    mark=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
    pack=st.sampled_from([bytes, gzip.compress, zstd.compress]),
)
def test_neither_packing_nor_line_ends_change_documents(
    texts: list[str],
    mark: bool,
    end: str,
    pack: Callable[[bytes], bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("packed") / "corpus"
    rows = (json.dumps({"_id": n, "title": None, "text": text}) for n, text in enumerate(texts))
    content = BOM * mark + end.join(rows).encode()
    path.write_bytes(pack(content))
    assert [found for _, found in read_documents(path)] == [
        Document(doc_id=str(number), text=text) for number, text in enumerate(texts)
    ]


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
def test_a_file_that_was_cut_off_is_named(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(pack(CASE_07.encode())[:-9])
    with pytest.raises(InputError, match=r"corpus\.jsonl\.gz cannot be decompressed"):
        list(read_documents(path))


def test_both_names_of_an_id_numbers_and_missing_titles(tmp_path: Path) -> None:
    assert read(
        tmp_path / "docs.jsonl",
        '{"doc_id": "a", "title": "A", "text": "of a", "url": "left out"}',
        "",
        '{"_id": "b", "text": "of b", "title": null}',
        '{"_id": 7, "text": "of seven"}',
        '{"_id": "t", "title": "only a title", "text": ""}',
        '{"doc_id": null, "_id": "n", "text": "an empty column beside the id"}',
    ) == [
        Document(doc_id="a", title="A", text="of a"),
        Document(doc_id="b", text="of b"),
        Document(doc_id="7", text="of seven"),
        Document(doc_id="t", text="only a title"),
        Document(doc_id="n", text="an empty column beside the id"),
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not JSON"),
        ("[1]", "a JSON object is expected, not list"),
        ('{"text": "no id"}', "has no doc_id or _id or id; it has text"),
        ('{"_id": null, "text": "x"}', "has no doc_id or _id or id; it has text"),
        ('{"_id": "", "text": "x"}', "the doc_id or _id or id is empty"),
        ('{"_id": "a"}', "has no text; it has _id"),
        ('{"_id": "a", "body": "x"}', "has no text; it has _id, body"),
        ('{"_id": "a", "text": ""}', "the text is empty"),
        ('{"_id": "a", "text": " \\n "}', "the text is empty"),
        ('{"_id": "a", "text": 5}', "the text is not a string but int"),
        ('{"_id": ["a"], "text": "x"}', "is not a string but list"),
        ('{"_id": "' + "x" * 513 + '", "text": "x"}', "at most 512"),
        ('{"_id": "a", "title": 5, "text": "x"}', "title: Input should be a valid string"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_read(
    line: str, complaint: str, tmp_path: Path
) -> None:
    first, bad, last = read(
        tmp_path / "docs.jsonl", '{"_id": "a", "text": "x"}', line, '{"_id": "b", "text": "x"}'
    )
    assert isinstance(first, Document)
    assert isinstance(last, Document)
    assert isinstance(bad, InvalidRecordError)
    assert complaint in str(bad)


def test_bytes_that_are_no_text_are_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_bytes(b'{"_id": "a", "text": "\xff"}\n')
    [(_, found)] = read_documents(path)
    assert str(found) == "not UTF-8"


def test_other_names_of_fields_replace_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_text('{"pid": "a", "head": "A", "passage": "of a", "text": "not this"}\n')
    [(_, found)] = read_documents(path, Fields.of("pid", "head", "passage"))
    assert found == Document(doc_id="a", title="A", text="of a")


def test_a_fault_of_every_line_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_text('{"id": 1, "body": "x"}\n' * 1000)
    left_out = LeftOut()
    assert by_id(read_documents(path), lambda document: document.doc_id, left_out) == {}
    numbers = ", ".join(map(str, range(1, 21)))
    assert list(left_out.messages()) == [
        f"{path}: has no text; it has id, body (1,000 lines: {numbers}, …)"
    ]


def test_many_different_faults_are_counted(tmp_path: Path) -> None:
    left_out = LeftOut()
    for number in range(30):
        left_out.add(f"{tmp_path}/{number}.txt", InvalidRecordError("not UTF-8"))
    *first, last = left_out.messages()
    assert first == [f"{tmp_path}/{number}.txt: not UTF-8" for number in range(20)]
    assert last == "… and 10 more with other faults."


def test_queries_by_tab_or_as_json(tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_bytes(BOM + b"q1\topen a file \r\nq2 no tab\nq3\t \n")
    (tmp_path / "q.jsonl.gz").write_bytes(gzip.compress(b'{"_id": 1, "text": "open"}\n'))
    first, second, third = (found for _, found in read_queries(tmp_path / "q.tsv"))
    assert first == Query("q1", "open a file")
    assert str(second) == "expected query id <tab> text"
    assert str(third) == "the text is empty"
    assert [found for _, found in read_queries(tmp_path / "q.jsonl.gz")] == [Query("1", "open")]


@pytest.mark.parametrize(
    "content",
    [
        "query-id\tcorpus-id\tscore\nq 1\ta b\t2\nq2\tc\t0\n",
        "q 1\ta b\t2\r\nq2\tc\t0",
        "q 1\t0\ta b\t2\nq2 Q0 c 0\n",
    ],
)
def test_judgements_of_beir_and_of_trec(content: str, tmp_path: Path) -> None:
    path = tmp_path / "qrels"
    path.write_bytes(content.encode())
    found = [value for _, value in read_judgements(path)]
    assert found == [Judgement("q 1", "a b", 2), Judgement("q2", "c", 0)]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("q1 d1", "2 columns; expected query id, document id and grade"),
        ("q1\td1\thigh", "the grade 'high' is not a whole number"),
        ("q1\td1\t1.5", "the grade '1.5' is not a whole number"),
    ],
)
def test_a_line_that_is_no_judgement(line: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "qrels"
    path.write_text(line)
    [(place, found)] = read_judgements(path)
    assert place == f"{path}:1"
    assert complaint in str(found)
