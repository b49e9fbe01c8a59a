"""What ``.ci/size.py`` counts."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "size.py"


@pytest.fixture(scope="module")
def size() -> ModuleType:
    spec = importlib.util.spec_from_file_location("size_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["size_script"] = module
    spec.loader.exec_module(module)
    return module


def source(size: ModuleType, folder: Path, text: str, name: str = "a.py") -> object:
    (folder / name).write_text(text)
    return size.Source.read(folder / name)


TEXT = '''"""A module
of two lines."""

import os  # counted

# not counted
LIMIT = 3
"""Not counted either."""


def call(
    value: str = """a string
    that is data""",
) -> str:
    """Docstring."""

    return os.sep
'''


def test_code_lines_are_neither_blank_nor_comment_nor_docstring(
    size: ModuleType, tmp_path: Path
) -> None:
    assert size.code_lines(source(size, tmp_path, TEXT)) == 7


def test_exceptions_are_found_by_name_and_by_base(size: ModuleType, tmp_path: Path) -> None:
    first = source(
        size,
        tmp_path,
        "class Base(Exception): ...\nclass NamedError(Mixin): ...\nclass Model(BaseModel): ...\n",
    )
    second = source(
        size,
        tmp_path,
        "import a\nclass Stopped(a.Base): ...\nclass Deeper(Stopped): ...\nclass Plain: ...\n",
        "b.py",
    )
    assert size.exceptions([first, second]) == ["Base", "Deeper", "NamedError", "Stopped"]


def test_what_is_above_its_limit_is_named(
    size: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "package"
    folder.mkdir()
    sources = [source(size, Path("package"), "x = 1\n" * n, f"m{n}.py") for n in (1, 2, 5)]
    test = Path("test_long.py")
    test.write_text("\n" * 9)
    limits = {"code_lines": 8, "files": 2, "settings": 5, "exceptions": 0}
    limits |= {"lines_per_file": 4, "modules_per_folder": 3}
    found = {each.name: each for each in size.measures(sources, [test], 5, limits)}
    assert {name for name, each in found.items() if each.exceeded} == {"files", "lines_per_file"}
    assert found["code_lines"].figure == 8
    assert found["physical_lines"].figure == 8
    assert found["lines_per_file"].above == ("test_long.py: 9", "package/m5.py: 5")
    assert found["modules_per_folder"].figure == 3
