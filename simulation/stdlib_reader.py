"""Prints docstrings as JSON lines, of the packages given or of the standard library.

Importing all of a library has side effects (signal handlers, sockets, warnings), so
:mod:`simulation.stdlib_corpus` does it in a child process, whose only output is this. The
script therefore needs nothing but the standard library.
"""

import importlib
import importlib.util
import inspect
import io
import json
import os
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

LEFT_OUT = {
    "antigravity",  # opens a web browser
    "this",  # prints
    "idlelib",  # an application
    "test",
    "turtledemo",
    "tkinter",  # needs Tk, which many installations lack
    "turtle",
    "lib2to3",
    "encodings",  # a hundred tables of one sentence
    "pydoc_data",
    "__phello__",
    "__hello__",
}
_MEMBERS = (
    staticmethod,
    classmethod,
    property,
    type(str.join),
    type(dict.__dict__["fromkeys"]),
)


def module_names(packages: Iterable[str]) -> Iterator[str]:
    """Public modules and public submodules of the packages, sorted."""
    for top in sorted(packages):
        if not top.startswith("_") and top not in LEFT_OUT:
            yield from _with_submodules(top)


def _with_submodules(name: str) -> Iterator[str]:
    yield name
    try:
        found = importlib.util.find_spec(name)
    except ImportError:
        return
    if found is not None and found.submodule_search_locations:
        for inner in sorted(pkgutil.iter_modules(found.submodule_search_locations)):
            if not inner.name.startswith("_") and inner.name not in LEFT_OUT | {"tests"}:
                yield from _with_submodules(f"{name}.{inner.name}")


def documented(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The module, its public functions and classes, and their public methods and properties."""
    yield module.__name__, module
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or getattr(value, "__module__", None) in ("typing", None):
            continue
        if inspect.isclass(value):
            yield f"{module.__name__}.{name}", value
            for member, inner in sorted(vars(value).items()):
                if not member.startswith("_") and (
                    inspect.isroutine(inner) or isinstance(inner, _MEMBERS)
                ):
                    yield f"{module.__name__}.{name}.{member}", inner
        elif inspect.isroutine(value):
            yield f"{module.__name__}.{name}", value


def docstring(value: Any) -> str | None:
    """An object's own docstring, dedented; nothing that is inherited."""
    inner = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    text = inner.__doc__
    return inspect.cleandoc(text) if isinstance(text, str) else None


def main() -> None:
    """Write ``{"name", "home", "doc"}`` lines to standard output, one an object.

    ``home`` is false if another module defines the object. If packages are given, what others
    define is left out.
    """
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout = io.StringIO()
    packages = sys.argv[1:]
    for name in module_names(packages or sys.stdlib_module_names):
        try:
            module = importlib.import_module(name)
        except Exception:
            # Of another platform, or optional and not built: this Python has no such module.
            continue
        for full_name, value in documented(module):
            origin = getattr(value, "__module__", None)
            if packages and origin and origin.split(".")[0] not in packages:
                continue
            if text := docstring(value):
                home = origin in (name, None)
                output.write(json.dumps({"name": full_name, "home": home, "doc": text}) + "\n")
    output.flush()
    # Threads that an imported module started must not hold the process.
    os._exit(0)


if __name__ == "__main__":
    main()
