"""Counts, warnings and exit status of an import."""

import pytest

from streams.importing.report import Counts, Report


def report(**fields):
    found = Report()
    found.formats["lrat"] = Counts(**{"steps": 10, "searches": 1, "hits": 3, "opens": 1} | fields)
    return found


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        ({"searches": 0, "hits": 0}, "no step is a search"),
        ({"hits": 0}, "no search has a hit. The first: 'lamp' gave ''"),
        (
            {"opens_unsearched": 1},
            "no opened document is a hit of a search. The first: open of 'x'",
        ),
        ({"not_understood": 2}, "2 of 10 steps were not understood. The first: dance"),
    ],
)
def test_unlikely_figures_are_warnings_with_an_example_and_what_to_read(fields, warning):
    examples = {"search": "'lamp' gave ''", "open": "open of 'x'", "step": "dance"}
    found = report(**fields, examples=examples)
    [given] = found.warnings()
    assert given.startswith(f"lrat: {warning}")
    assert "docs/import.md" in given
    assert found.exit_status == 3
    found.bad("x.json", "broken")
    assert found.exit_status == 3


def test_likely_figures_are_none():
    found = report(opens=3, opens_unsearched=2, not_understood=1)
    assert (found.warnings(), found.exit_status) == ([], 0)
    events = Report()
    events.formats["events"] = Counts(steps=1, answers=1)
    assert events.exit_status == 0


def test_what_is_bad():
    found = report()
    for number in range(1001):
        found.bad(f"{number}.json", "broken", incomplete=number == 0)
    assert (found.incomplete, found.left_out, len(found.problems)) == (1, 1000, 1000)
    assert found.problems[0] == ("0.json", "broken (the steps before it are read)")
    assert found.exit_status == 1


def test_lines_name_the_unknown_tools_and_leave_zeros_out():
    counts = report(files=1).of("lrat")
    counts.unknown_tools.update({f"t{number}": number for number in range(1, 13)})
    first, second = [*report().lines(), *report(unknown_tools=counts.unknown_tools).lines()][1:]
    assert first == "lrat: 10 steps, 1 searches, 3 hits, 1 opens"
    assert second.startswith("  unknown tools: t12 12, t11 11,")
    assert second.endswith("t3 3, and 2 more")
