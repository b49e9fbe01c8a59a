"""``retrail demo``: the flywheel over a stack of its own, with a report and a chart at the end."""

from pathlib import Path

from rich.console import Console

from simulation.corpora import beir, stdlib_corpus
from simulation.demo.report import Report, require_writable, write
from simulation.demo.view import View


def run(
    *,
    report: Path | None,
    chart: Path | None,
    corpus: Path | None,
    turns: int,
    seed: int,
    agents: int | None,
) -> Report:
    """Run the demo; returns when everything is stopped, removed and written.

    Args:
        report: file for the figures as JSON.
        chart: file for the figures as PNG.
        corpus: a BEIR folder; ``None``: the standard library's documentation.
        turns: how often it learns.
        seed: decides all draws.
        agents: in each turn; ``None``: two for every need.

    Raises:
        InputError: the corpus cannot be read, or a file cannot be written.
        StackError: a signal ended it.
        RetrailError: a stage did not run.
    """
    from simulation.corpora.corpus import require_fitting
    from simulation.demo.chart import draw
    from simulation.demo.flywheel import Flywheel, Plan
    from simulation.demo.installation import gate_note, installation

    outputs = [path for path in (report, chart) if path is not None]
    require_writable(outputs)
    view = View(Console())
    found = stdlib_corpus.load() if corpus is None else beir.load(corpus)
    require_fitting(found.documents)
    plan = Plan.of(found, turns, seed, agents)
    with view.showing():
        view.say(
            f"{found.name}: {len(found.documents):,} documents, {len(found.training):,} needs for "
            f"agents, {len(found.unseen):,} never seen. {turns} turns of {plan.agents:,} agents, "
            f"seed {seed}."
        )
        with installation(seed, view.say) as stack:
            view.say(gate_note(stack.settings))
            result = Flywheel(plan, stack, view).run()
    if report is not None:
        write(result, report)
    if chart is not None:
        draw(result, chart)
    view.result(result)
    for path in outputs:
        view.say(f"written: {path}")
    return result
