import pytest

from simulation import stdlib_corpus
from simulation.stdlib_corpus import Entry, build, mask, split


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return stdlib_corpus.read_entries()


def test_reads_the_python_that_runs_it(entries: list[Entry]) -> None:
    names = {entry.name for entry in entries}
    assert {"textwrap.dedent", "json.loads", "math.hypot", "str.join"} - names == {"str.join"}
    assert "builtins.str.join" in names
    assert "collections.OrderedDict.move_to_end" in names


def test_leaves_out_applications_and_modules_that_act_on_import(entries: list[Entry]) -> None:
    tops = {entry.name.split(".")[0] for entry in entries}
    assert not tops & {"antigravity", "this", "idlelib", "test", "tkinter", "encodings"}
    assert not any(top.startswith("_") for top in tops)


def test_the_corpus_is_the_same_every_time(entries: list[Entry]) -> None:
    assert build(reversed(entries), "x") == build(entries, "x")


def test_size_and_halves(entries: list[Entry]) -> None:
    corpus = build(entries, "x")
    assert 1400 < len(corpus.documents) < 2200
    texts = [" ".join(document.text.split()) for document in corpus.documents]
    assert len(set(texts)) == len(texts)
    folded = [need.text.casefold() for need in (*corpus.training, *corpus.unseen)]
    assert len(set(folded)) == len(folded)
    assert 0.4 < len(corpus.unseen) / corpus.needs < 0.6
    ids = {document.doc_id for document in corpus.documents}
    served = [doc_id for need in (*corpus.training, *corpus.unseen) for doc_id in need.relevant]
    assert sorted(served) == sorted(ids)


def test_no_need_names_its_object(entries: list[Entry]) -> None:
    corpus = build(entries, "x")
    dedent = next(n for n in corpus.training + corpus.unseen if "textwrap.dedent" in n.relevant)
    assert dedent.text == "Remove any common leading whitespace from every line in `text`."
    parse = next(n for n in corpus.training + corpus.unseen if "ast.parse" in n.relevant)
    assert parse.text == "___ the source into an AST node."


LONG = "The rest of the documentation, which says in more words what it is about. " * 2


def test_equal_documents_are_one_and_it_is_named_where_it_is_defined() -> None:
    corpus = build(
        [
            Entry("a.copy", False, f"Make a copy of a thing.\n\n{LONG}"),
            Entry("much.longer.copy", True, f"Make a copy of a thing.\n\n{LONG} "),
        ],
        "x",
    )
    assert [document.doc_id for document in corpus.documents] == ["much.longer.copy"]


def test_equal_needs_are_one_with_several_documents() -> None:
    corpus = build(
        [
            Entry("a.put", True, f"Put an item into the queue.\n\n{LONG}"),
            Entry("b.put", True, f"put an item into the queue.\n\n{LONG} It may block."),
        ],
        "x",
    )
    (need,) = corpus.training + corpus.unseen
    assert need.relevant == {"a.put": 1, "b.put": 1}
    assert need.text == "___ an item into the queue."


@pytest.mark.parametrize(
    "doc",
    [
        f"Too short need.\n\n{LONG}",
        "A need that is long enough.\n\nToo short a document.",
        "A need that is long enough.",
        "",
    ],
)
def test_leaves_out_what_is_too_short(doc: str) -> None:
    assert build([Entry("a.b", True, doc)], "x").documents == ()


@pytest.mark.parametrize(
    ("doc", "need", "text"),
    [
        ("One. Two is\nlonger.", "One.", "Two is\nlonger."),
        ("One line\nof two\n\nThe rest.", "One line of two", "The rest."),
        ("S.find(sub[, start]) -> int\n\nReturn it. Or -1.", "Return it.", "Or -1."),
        ("See e.g. this one. Then more.", "See e.g. this one.", "Then more."),
        ("Only one", "Only one", ""),
        ("Options are:\n  a\n  b", "Options are", "a\n  b"),
    ],
)
def test_split(doc: str, need: str, text: str) -> None:
    assert split(doc) == (need, text)


@pytest.mark.parametrize(
    ("need", "name", "masked"),
    [
        ("Return the hypot(a, b) of it.", "math.hypot", "Return the ___(a, b) of it."),
        ("Like json.loads() but Loads less.", "json.loads", "Like ___ but ___ less."),
        ("Downloads loads_of things.", "json.loads", "Downloads loads_of things."),
    ],
)
def test_mask(need: str, name: str, masked: str) -> None:
    assert mask(need, name) == masked
