"""Imports run downwards between packages, and no two modules import each other."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]

MAY_IMPORT = {
    "retrail": set(),
    "schemas": set(),
    "retrail_runtime": {"schemas"},
    "streams": {"schemas", "retrail_runtime"},
    "trainer": {"schemas", "retrail_runtime"},
    "consumers": {"schemas", "retrail_runtime", "trainer"},
    "serving": {"schemas", "retrail_runtime", "trainer", "retrail"},
    "deploy": {"schemas", "retrail_runtime"},
}
"""What each package may import beside itself. ``simulation`` may import all of these."""
MAY_IMPORT["simulation"] = set(MAY_IMPORT)
MAY_IMPORT["retrail_cli"] = set(MAY_IMPORT)


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Dotted name and syntax tree of every module of every package."""
    for package in MAY_IMPORT:
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield name, ast.parse(file.read_text(encoding="utf-8"))


def imports(nodes: Iterator[ast.AST] | list[ast.stmt], modules: set[str]) -> set[str]:
    """Our modules that import statements among ``nodes`` name."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            # A name of the package itself, not of a module in it, needs the package.
            found |= (inner & modules) | ({node.module} if inner - modules else set())
    return found & modules


def test_imports_run_downwards() -> None:
    trees = dict(sources())
    upwards = [
        f"{name} imports {other}"
        for name, tree in trees.items()
        for other in sorted(imports(ast.walk(tree), set(trees)))
        if (package := name.partition(".")[0]) != (below := other.partition(".")[0])
        and below not in MAY_IMPORT[package]
    ]
    assert not upwards, "\n".join(upwards)


def test_no_modules_import_each_other() -> None:
    trees = dict(sources())
    graph = {name: imports(tree.body, set(trees)) - {name} for name, tree in trees.items()}
    # Raises CycleError, which names the modules of a circle.
    TopologicalSorter(graph).prepare()


def test_every_package_says_what_it_is_for() -> None:
    for name, tree in sources():
        package = ROOT / Path(*name.split("."))
        if package.is_dir():
            text = (ast.get_docstring(tree) or "").strip()
            assert text, f"{name} has no docstring"
            assert "ay import" in text or "." not in name, f"{name}: what may it import?"
