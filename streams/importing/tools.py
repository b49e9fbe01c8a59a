"""The tool map: which tools search and open, and where query, ids and hits stand in a call.

The defaults are in ``tools.toml``; entries of ``--tools FILE`` have the same form and go first.
"""

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from schemas.base import describe
from schemas.errors import InputError, InvalidRecordError
from streams.importing.files import json_in

DEFAULTS = Path(__file__).with_name("tools.toml")

Names = tuple[str, ...]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    names: Names


class SearchTool(_Entry):
    """A tool that searches. A path is names and numbers, separated by dots; the first found counts.

    Attributes:
        query: paths in the arguments, to one query or a list of queries.
        hits: paths in a JSON result to the list of hits; the empty path is the result itself.
        id: paths in a hit.
        other_ids: paths in a hit to other ids, under which ``documents`` may have it.
        title: paths in a hit.
        text: paths in a hit.
        score: paths in a hit.
        patterns: regular expressions for results in text, with a group ``id`` and optionally
            ``title``; the first that matches counts.
    """

    query: Names = ()
    hits: Names = ()
    id: Names = ()
    other_ids: Names = ()
    title: Names = ()
    text: Names = ()
    score: Names = ()
    patterns: Names = ()

    @field_validator("patterns")
    @classmethod
    def _compiles(cls, patterns: Names) -> Names:
        for pattern in patterns:
            try:
                groups = re.compile(pattern).groupindex
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
            if "id" not in groups:
                raise ValueError(f"{pattern!r} has no group (?P<id>…)")
        return patterns

    def expressions(self) -> tuple[re.Pattern[str], ...]:
        """The patterns, compiled; ^ and $ match at the ends of lines."""
        return _compiled(self.patterns)


@cache
def _compiled(patterns: Names) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.MULTILINE) for pattern in patterns)


class OpenTool(_Entry):
    """A tool that opens documents; ``id``: paths in the arguments."""

    id: Names = ()


class OtherTool(_Entry):
    """A tool that is known, and neither searches nor opens."""


Tool = SearchTool | OpenTool | OtherTool


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    search: tuple[SearchTool, ...] = ()
    open: tuple[OpenTool, ...] = ()
    other: tuple[OtherTool, ...] = ()

    def entries(self) -> Iterator[Tool]:
        return chain(self.search, self.open, self.other)


class ToolMap:
    """Tools by name, ignoring case; ``mcp__server__search`` is ``search``."""

    def __init__(self, tools: dict[str, Tool]) -> None:
        self._tools = tools

    @classmethod
    def load(cls, path: Path | None = None) -> "ToolMap":
        """The entries of a file, which inherit omitted fields, before the defaults.

        Raises:
            InputError: the file cannot be read, or is not a tool map.
        """
        defaults = _defaults()
        tools = _named(defaults)
        if path is not None:
            bases: tuple[Tool, ...] = (defaults.search[0], defaults.open[0])
            tools |= _named(_read(path), bases)
        return cls(tools)

    def find(self, name: str) -> Tool | None:
        """The entry of a tool."""
        name = name.lower()
        return self._tools.get(name) or self._tools.get(re.split(r"__|functions\.", name)[-1])


def _named(file: _File, bases: tuple[Tool, ...] = ()) -> dict[str, Tool]:
    named: dict[str, Tool] = {}
    for entry in file.entries():
        tool = next(
            (
                base.model_copy(update=entry.model_dump(exclude_unset=True))
                for base in bases
                if type(base) is type(entry)
            ),
            entry,
        )
        named |= dict.fromkeys(map(str.lower, entry.names), tool)
    return named


@cache
def _defaults() -> _File:
    return _read(DEFAULTS)


def _read(path: Path) -> _File:
    try:
        return _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        problems = describe(error.errors(include_url=False))
        raise InputError(f"{path} is not a tool map: {problems}", path=path) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}", path=path) from error


def at(value: Any, path: str) -> Any:
    """The value at a path, or ``None``.

    >>> at({"data": [{"id": 7}]}, "data.0.id")
    7
    """
    if path and "." not in path and isinstance(value, dict):
        return value.get(path)
    for name in path.split(".") if path else ():
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def first(value: Any, paths: Names) -> Any:
    """The value at the first path that has one, or ``None``."""
    for path in paths:
        if (found := at(value, path)) is not None:
            return found
    return None


def texts(value: Any) -> list[str]:
    """Strings and numbers, one or a list of them, as texts; blank ones and others are left out."""
    if value is None:
        return []
    listed = json_in(value, ("[",))
    value = value if isinstance(listed, InvalidRecordError) else listed
    values = value if isinstance(value, list) else [value]
    found = (str(one).strip() for one in values if isinstance(one, str | int | float))
    return [text for text in found if text]
