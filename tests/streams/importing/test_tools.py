"""The tool map."""

import pytest

from schemas.errors import InputError
from streams.importing.tools import OpenTool, OtherTool, SearchTool, ToolMap, at, first, texts


@pytest.mark.parametrize(
    "name",
    ["search", "Search", "web_search", "WebSearch", "browser.search", "functions.search",
     "mcp__any_server__retrieve"],
)  # fmt: skip
def test_tools_that_search(name):
    assert isinstance(ToolMap.load().find(name), SearchTool)


@pytest.mark.parametrize(
    "name", ["open", "fetch", "visit", "get_document", "open_document", "browser.open", "WebFetch"]
)
def test_tools_that_open(name):
    assert isinstance(ToolMap.load().find(name), OpenTool)


def test_other_tools():
    assert isinstance(ToolMap.load().find("Bash"), OtherTool)
    assert ToolMap.load().find("kb_lookup") is None


def test_a_file_s_entries_come_first_and_inherit_what_they_leave_out(tmp_path):
    path = tmp_path / "tools.toml"
    path.write_text(
        '[[search]]\nnames = ["kb", "Open"]\nquery = ["needle"]\npatterns = [\'^#(?P<id>\\d+)\']\n'
        '[[open]]\nnames = ["kb_read"]\n[[other]]\nnames = ["visit"]\n'
    )
    tools, defaults = ToolMap.load(path), ToolMap.load()
    kb, search = tools.find("kb"), defaults.find("search")
    assert isinstance(kb, SearchTool)
    assert isinstance(search, SearchTool)
    assert (kb.query, kb.id) == (("needle",), search.id)
    assert kb.expressions()[0].findall("#7\n#8") == ["7", "8"]
    assert tools.find("open") is kb
    assert isinstance(tools.find("kb_read"), OpenTool)
    assert isinstance(tools.find("visit"), OtherTool)
    assert tools.find("search") == search


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[[search]\n", "cannot be read"),
        ("[[serach]]\nnames = []\n", "serach: Extra inputs are not permitted"),
        ('[[search]]\nquery = ["q"]\n', "search.0.names: Field required"),
        ("[[search]]\nnames = []\npatterns = ['(']\n", "is not a regular expression"),
        ("[[search]]\nnames = []\npatterns = ['x']\n", "has no group"),
    ],
)
def test_a_broken_file_is_named(tmp_path, content, complaint):
    path = tmp_path / "tools.toml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"tools\.toml") as error:
        ToolMap.load(path)
    assert complaint in str(error.value)
    with pytest.raises(InputError, match="cannot be read"):
        ToolMap.load(tmp_path / "absent.toml")


def test_paths():
    value = {"a": [{"b": 0}, {"b": None}], "c": ""}
    assert at(value, "") is value
    assert [at(value, path) for path in ("a.0.b", "a.1.b", "a.2", "a.b", "c.d", "x")] == [
        0,
        *[None] * 5,
    ]
    assert first(value, ("x", "a.0.b", "c")) == 0


def test_texts():
    assert texts(["a ", 7, None, {"x": 1}, " "]) == ["a", "7"]
    assert texts('["a", "b"]') == ["a", "b"]
    assert texts("[not a list") == ["[not a list"]
    assert texts(None) == []
