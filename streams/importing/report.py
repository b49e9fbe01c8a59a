"""The report of an import: counts by format, unreadable trajectories, and warnings."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

EXIT_BAD, EXIT_SUSPICIOUS = 1, 3
"""Some trajectories are incomplete or unreadable; the figures suggest a misread format."""

KEPT = 1000
"""Problems that are recorded with their places; more are only counted."""


@dataclass(slots=True)
class Counts:
    """Counts of one format.

    Attributes:
        repeated: trajectories that were read before.
        opens_unsearched: opened documents that no earlier search of the trajectory returned.
        opens_failed: opens whose result is an error; they give no event.
        ambiguous: calls with several queries whose hits cannot be assigned to one of them.
        not_documents: hits that are not in ``documents`` under any of their ids; ``None`` if the
            documents are not known.
        unknown_tools: calls by the name of the tool.
        not_understood: calls of unknown tools, and steps and calls of unknown form.
        examples: the first of each kind, for warnings.
    """

    files: int = 0
    trajectories: int = 0
    repeated: int = 0
    steps: int = 0
    searches: int = 0
    hits: int = 0
    opens: int = 0
    opens_unsearched: int = 0
    opens_failed: int = 0
    reasonings: int = 0
    answers: int = 0
    ambiguous: int = 0
    not_documents: int | None = None
    not_understood: int = 0
    unknown_tools: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def example(self, kind: str, text: str) -> None:
        """Record the first one of a kind."""
        self.examples.setdefault(kind, text[:300])


@dataclass(slots=True)
class Report:
    """The report of one import.

    Attributes:
        incomplete: trajectories of which only the steps before a fault were read.
        left_out: files and trajectories of which nothing was read.
        problems: place and problem of the first :data:`KEPT` of both.
    """

    formats: dict[str, Counts] = field(default_factory=dict)
    incomplete: int = 0
    left_out: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)

    def of(self, name: str) -> Counts:
        """The counts of a format."""
        return self.formats.setdefault(name, Counts())

    def bad(self, place: str, problem: str, *, incomplete: bool = False) -> None:
        """Record a file or trajectory that cannot be read, or not to its end."""
        if incomplete:
            self.incomplete += 1
            problem += " (the steps before it are read)"
        else:
            self.left_out += 1
        if len(self.problems) < KEPT:
            self.problems.append((place, problem))

    @property
    def trajectories(self) -> int:
        """The number of trajectories of all formats."""
        return sum(counts.trajectories for counts in self.formats.values())

    def warnings(self) -> list[str]:
        """Signs that a format or its tools were probably misread."""
        return [
            f"{name}: {warning}"
            for name, counts in self.formats.items()
            for warning in _warnings(name, counts)
        ]

    @property
    def exit_status(self) -> int:
        """0; 1 if something could not be read; 3 if there are warnings."""
        if self.warnings():
            return EXIT_SUSPICIOUS
        return EXIT_BAD if self.incomplete or self.left_out else 0

    def as_json(self) -> dict[str, Any]:
        """The content of the file that ``--report`` writes."""
        return {**asdict(self), "warnings": self.warnings(), "exit_status": self.exit_status}

    def lines(self) -> Iterator[str]:
        """The counts as text, one line per format, without zeros."""
        for name, counts in self.formats.items():
            figures = [
                f"{value:,} {field.replace('_', ' ')}"
                for field, value in asdict(counts).items()
                if isinstance(value, int) and value
            ]
            yield f"{name}: {', '.join(figures)}"
            if counts.unknown_tools:
                tools = counts.unknown_tools.most_common(10)
                more = len(counts.unknown_tools) - len(tools)
                named = ", ".join(f"{tool} {calls:,}" for tool, calls in tools)
                yield f"  unknown tools: {named}" + (f", and {more} more" if more else "")


def _warnings(name: str, counts: Counts) -> Iterator[str]:
    advice = "See docs/import.md, “You see no pairs: why”, and --tools."
    if name != "events" and counts.steps and not counts.searches:
        yield f"no step is a search. {advice}"
    if counts.searches and not counts.hits:
        yield f"no search has a hit. The first: {counts.examples.get('search')}. {advice}"
    if counts.opens and counts.opens == counts.opens_unsearched:
        yield (
            "no opened document is a hit of a search. "
            f"The first: {counts.examples.get('open')}. {advice}"
        )
    if counts.not_understood * 10 > counts.steps:
        yield (
            f"{counts.not_understood:,} of {counts.steps:,} steps were not understood. "
            f"The first: {counts.examples.get('step')}. {advice}"
        )
