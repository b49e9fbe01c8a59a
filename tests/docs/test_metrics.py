"""docs/metrics.md lists every metric of every process, as the code has it."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from prometheus_client import Counter, Histogram, Metric
from prometheus_client.metrics import MetricWrapperBase

from retrail import Stats
from serving.metrics import EventCounts

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "metrics.md").read_text()
PACKAGES = ("schemas", "retrail_runtime", "streams", "consumers", "trainer", "serving")

Row = tuple[str, str, str, str]


def modules() -> list[ModuleType]:
    """Every ``metrics.py`` and ``…_metrics.py``, new ones included."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*metrics.py"))]
    names = (".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files)
    return [importlib.import_module(name) for name in names]


def families() -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """Every metric with its labels."""
    wrapped: dict[int, Any] = {
        id(found): found
        for module in modules()
        for found in vars(module).values()
        if isinstance(found, MetricWrapperBase)
    }
    for found in wrapped.values():
        for family in found.describe():
            yield family, found._labelnames
    for family in EventCounts(Stats).collect():
        yield family, tuple(dict.fromkeys(name for s in family.samples for name in s.labels))


def row(family: Metric, labels: tuple[str, ...]) -> Row:
    name = family.name + ("_total" if family.type == "counter" else "")
    return name, family.type, ", ".join(labels), family.documentation


def written() -> list[Row]:
    rows = re.findall(r"^\| `(retrail_\w+)` \| (\w+) \| (.*?) ?\| (.*) \|$", DOCS, re.MULTILINE)
    return [(name, kind, labels, meaning) for name, kind, labels, meaning in rows]


def test_the_table_is_what_the_code_has() -> None:
    expected = {row(*found) for found in families()}
    lines = written()
    assert len(lines) == len(set(lines))
    assert sorted(lines) == sorted(expected)


def test_queries_name_metrics_that_exist() -> None:
    names = {name for name, _, _, _ in written()}
    series = {
        name + suffix
        for name, kind, _, _ in written()
        for suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }
    queried = re.findall(r"retrail_\w+", "\n".join(re.findall(r"```promql\n(.*?)```", DOCS, re.S)))
    assert len(queried) > 20
    assert set(queried) <= series
    assert len(names) > 50


def test_names_follow_the_conventions() -> None:
    for name, kind, _, _ in written():
        assert re.fullmatch(r"retrail_[a-z][a-z0-9_]*", name)
        assert (kind == "counter") == name.endswith("_total")


def counted_labels() -> Iterator[tuple[str, int, str]]:
    """Counter or histogram, place of the label and value, of each constant given to ``labels``."""
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for call in ast.walk(ast.parse(file.read_text())):
                match call:
                    case ast.Call(func=ast.Attribute(attr="labels", value=metric)):
                        given = [*call.args, *(keyword.value for keyword in call.keywords)]
                        for place, argument in enumerate(given):
                            either = isinstance(argument, ast.IfExp)
                            for part in ast.walk(argument) if either else [argument]:
                                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                                    yield ast.unparse(metric).rpartition(".")[2], place, part.value


def test_counters_begin_at_zero_for_every_value_that_the_code_gives() -> None:
    """`rate` does not see the first increment of a series that appears with it."""
    known: dict[str, Any] = {
        name: found
        for module in modules()
        for name, found in vars(module).items()
        if isinstance(found, Counter | Histogram)
    }
    constants = [one for one in counted_labels() if one[0] in known]
    assert len(constants) > 20
    missing = [
        (name, value)
        for name, place, value in constants
        if value not in {labels[place] for labels in known[name]._metrics}
        and name not in ("DISCONTINUITIES", "EVENTS")
    ]
    assert not missing
