"""Every link, path, command, setting and metric that the documentation names exists."""

import functools
import importlib.util
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import typer

from retrail_cli.app import app
from schemas.settings import Settings, secret_fields

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
PAGES += [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "retrail" / "README.md"]
NAMES = ROOT / "docs" / "names.md"
SETTINGS = {f"RETRAIL_{name.upper()}" for name in Settings.model_fields} | {"RETRAIL_ENV_FILE"}
SETTINGS |= {f"RETRAIL_{name}_FILE".upper() for name in secret_fields()}
METRICS = set(re.findall(r"^\| `(retrail_\w+)`", (ROOT / "docs/metrics.md").read_text(), re.M))
NOT_METRICS = {"retrail_runtime", "retrail_cli", "retrail_server"}
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def text_of(page: Path) -> str:
    """The text of a page; of the tables of former names only the last column."""
    text = page.read_text(encoding="utf-8")
    if page == NAMES:
        return re.sub(r"^\| .* \| (.*) \|$", r"\1", text, flags=re.M)
    return text


def prose_of(page: Path) -> str:
    """The text without code blocks."""
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S)


def code_of(page: Path) -> list[str]:
    """Lines of code blocks, and what stands between back quotes elsewhere."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text_of(page), re.M | re.S)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", prose_of(page))


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose_of(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", prose_of(page)):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


def test_the_path_of_one_event_links_at_most_40_files() -> None:
    text = text_of(ROOT / "ARCHITECTURE.md")
    walk = text[text.index("## The path of one event") : text.index("## Failures")]
    files = set(re.findall(r"\]\(([\w/]+\.py)\)", walk))
    assert 30 < len(files) <= 40
    assert set(re.findall(r"[\w/]+\.py", walk)) <= files | {"openai.py", "normalise.py"}


@each_page
def test_paths_exist(page: Path) -> None:
    for code in code_of(page):
        if re.fullmatch(r"[\w.]+(/[\w.-]+)+/?", code) and code.split("/")[0] in FOLDERS:
            assert (ROOT / code).exists(), code
        for name in re.findall(r"(?:python|torchrun .*) -m ([a-z_][\w.]*)", code):
            spec = importlib.util.find_spec(name)
            assert spec is not None, name
            is_package = spec.submodule_search_locations is not None
            assert not is_package or importlib.util.find_spec(f"{name}.__main__"), name
        for name in re.findall(r"\btests/[\w/]+\.py\b", code):
            assert (ROOT / name).exists(), name
        for target in re.findall(r"^make ([a-z][\w-]*)", code):
            assert re.search(rf"^({target}|.*\b{target}\b.*):", _makefile(), re.M), target


def test_paths_in_the_notice_exist() -> None:
    paths = re.findall(r"\b\w+/[\w./]+\.txt\b", (ROOT / "NOTICE").read_text(encoding="utf-8"))
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


@functools.cache
def _makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")


@each_page
def test_settings_exist(page: Path) -> None:
    text = text_of(page)
    for name in re.findall(r"RETRAIL_[A-Z0-9_]*[A-Z0-9](?!_?…|[A-Z0-9_]|_?<)", text):
        assert name in SETTINGS, name
    for start in re.findall(r"(RETRAIL_[A-Z0-9_]+)(?:…|<)", text):
        assert any(name.startswith(start) for name in SETTINGS), start
    for end in re.findall(r"…((?:_[A-Z0-9]+)+)\b", text):
        assert any(name.endswith(end) for name in SETTINGS), end


def defaults_in(page: Path) -> list[tuple[str, str]]:
    """Settings and their defaults in the tables of a page that have a column for them."""
    found, column = list[tuple[str, str]](), None
    for line in text_of(page).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("|"):
            column = None
        elif "default" in cells:
            column = cells.index("default")
        elif column is not None and len(cells) > column:
            names = re.findall(r"`(RETRAIL_[A-Z_]+)`", cells[0])
            values = re.findall(r"`([^`]+)`|(?:^| )([\d.]+)\b", cells[column])
            found += zip(names, (quoted or number for quoted, number in values), strict=False)
    return found


@each_page
def test_defaults_are_those_of_the_settings(page: Path) -> None:
    for name, written in defaults_in(page):
        default = Settings.model_fields[name.removeprefix("RETRAIL_").lower()].default
        same = str(default) == written
        assert same or float(default) == float(written), f"{name}: {default}, not {written}"


@each_page
def test_metrics_exist(page: Path) -> None:
    for name in re.findall(r"(?<![\w-])retrail_[a-z0-9_]*[a-z0-9](?![\w-]|_?<)", text_of(page)):
        if name not in NOT_METRICS:
            assert re.sub("_(bucket|sum|count)$", "", name) in METRICS or name in METRICS, name


@each_page
def test_commands_exist(page: Path) -> None:
    for words in commands_in(code_of(page)):
        check(words)


def test_commands_of_the_examples_exist() -> None:
    for example in sorted((ROOT / "examples").glob("*.py")):
        for words in commands_in(example.read_text(encoding="utf-8").splitlines()):
            check(words)


def commands_in(code: Iterable[str]) -> list[list[str]]:
    """Words of each ``retrail …``, after its name."""
    found = []
    for line in code:
        command = re.match(r"(?:RETRAIL_\w+=\S+ )*retrail( (?!-).*|)$", line)
        if command is not None:
            found.append(shlex.split(re.sub(r" (#|>|\|) ?.*", "", command[1])))
    return found


def check(words: list[str]) -> None:
    """The words begin with a command, and their options are options of it."""
    command: Any = typer.main.get_command(app)
    for place, word in enumerate(words):
        children = getattr(command, "commands", {})
        if not children or word in ("…", "COMMAND"):
            break
        names = word.split("|")
        assert set(names) <= set(children), f"retrail {shlex.join(words[: place + 1])}"
        command = children[names[0]]
    options = {name for parameter in command.params for name in parameter.opts}
    options |= {name for parameter in command.params for name in parameter.secondary_opts}
    for word in words:
        if re.match("--?[a-z]", word):
            assert word in options | {"--help"}, f"retrail {shlex.join(words)}: {word}"


PRIVATE = (
    "anew|deaf|dealt|fate|folded|for ever|in vain|likewise|mend|nobody|set aside|somebody|speaks?|"
    "strangers?|told|whoever"
)


@each_page
def test_words_are_those_of_the_field(page: Path) -> None:
    assert re.findall(rf"\b({PRIVATE})\b", text_of(page), re.IGNORECASE) == []


def test_the_checks_find_what_they_look_for() -> None:
    code = [line for page in PAGES for line in code_of(page)]
    assert len(commands_in(code)) > 60
    assert len([found for page in PAGES for found in defaults_in(page)]) > 10
    with pytest.raises(AssertionError):
        check(["worker", "judge|nobody"])
    with pytest.raises(AssertionError):
        check(["search", "how do I", "--nowhere"])
