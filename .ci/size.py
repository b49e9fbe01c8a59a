"""Measures the source tree against ``[tool.retrail.limits]`` of pyproject.toml.

Prints a table; exits with 1 if a limit is exceeded. Code lines are those that hold something else
than blanks, comments and docstrings (those of constants and fields included).
"""

import ast
import io
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OTHERS = ("tests", "benchmarks", "examples", ".ci")
"""Measured by lines per file only."""

LAYOUT = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
)


@dataclass(frozen=True, slots=True)
class Source:
    """A Python file of a package."""

    path: Path
    text: str
    tree: ast.Module

    @classmethod
    def read(cls, path: Path) -> "Source":
        """Read and parse a file."""
        text = path.read_text(encoding="utf-8")
        return cls(path, text, ast.parse(text))


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure, its limit (``None``: none), and what exceeds it."""

    name: str
    figure: int
    limit: int | None = None
    above: tuple[str, ...] = ()

    @property
    def exceeded(self) -> bool:
        """Whether the figure is above the limit."""
        return self.limit is not None and self.figure > self.limit


def code_lines(source: Source) -> int:
    """Number of lines that are not blank and hold more than a comment or a docstring."""
    documented = set[int]()
    for node in ast.walk(source.tree):
        match node:
            case ast.Expr(ast.Constant(str()), lineno=first, end_lineno=last):
                documented.update(range(first, (last or first) + 1))
    lines = set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type not in LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - documented)


def exceptions(sources: Iterable[Source]) -> list[str]:
    """Names of classes that end in ``Error`` or derive from an exception, one for each class."""
    bases = {
        (source.path, node.name): [_name(base) for base in node.bases]
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
    }
    known = {"Exception", "BaseException"}
    found = set[tuple[Path, str]]()
    while True:
        more = {
            (path, name)
            for (path, name), derived in bases.items()
            if name.endswith("Error")
            or any(base.endswith(("Error", "Exception")) or base in known for base in derived)
        }
        if more == found:
            return sorted(name for _, name in found)
        found, known = more, known | {name for _, name in more}


def _name(base: ast.expr) -> str:
    match base:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.Subscript(value=value):
            return _name(value)
    return ""


def measures(
    sources: list[Source], others: list[Path], settings: int, limits: dict[str, int]
) -> Iterator[Measure]:
    """Every figure of the table."""
    yield Measure("code_lines", sum(map(code_lines, sources)), limits["code_lines"])
    yield Measure("physical_lines", sum(_lines(source.path) for source in sources))
    yield Measure("files", len(sources), limits["files"])
    yield Measure("settings", settings, limits["settings"])
    errors = exceptions(sources)
    yield Measure("exceptions", len(errors), limits["exceptions"], tuple(errors))
    lengths = {str(path): _lines(path) for path in [*(s.path for s in sources), *others]}
    yield _largest("lines_per_file", lengths, limits["lines_per_file"])
    folders = Counter(
        str(source.path.parent) for source in sources if source.path.stem not in _NO_MODULES
    )
    yield _largest("modules_per_folder", folders, limits["modules_per_folder"])


_NO_MODULES = ("__init__", "__main__")


def _largest(name: str, figures: dict[str, int], limit: int) -> Measure:
    above = sorted((figure, of) for of, figure in figures.items() if figure > limit)
    listed = tuple(f"{of}: {figure}" for figure, of in reversed(above))
    return Measure(name, max(figures.values(), default=0), limit, listed)


def _lines(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n")


def _python_files(folders: Iterable[str]) -> list[Path]:
    return sorted(path for folder in folders for path in Path(folder).rglob("*.py"))


def main() -> int:
    """Print the table; returns the exit status."""
    sys.path.insert(0, str(ROOT))
    from schemas.settings import Settings

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["mypy"]["packages"]
    sources = [Source.read(path) for path in _python_files(packages)]
    for package in packages:
        own = [source for source in sources if source.path.parts[0] == package]
        code = sum(map(code_lines, own))
        print(f"{package:<20} {len(own):>4} files {code:>7,} code lines")
    exceeded = 0
    for measure in measures(
        sources,
        _python_files(OTHERS),
        len(Settings.model_fields),
        project["tool"]["retrail"]["limits"],
    ):
        limit = "" if measure.limit is None else f"limit {measure.limit:>7,}"
        print(f"{measure.name:<20} {measure.figure:>7,}   {limit}", end="")
        print("   EXCEEDED" if measure.exceeded else "")
        if measure.exceeded:
            exceeded += 1
            print("".join(f"    {line}\n" for line in measure.above), end="")
    return int(exceeded > 0)


if __name__ == "__main__":
    import os

    os.chdir(ROOT)
    sys.exit(main())
