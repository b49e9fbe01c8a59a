"""``retrail demo``."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    report: Annotated[
        Path | None, typer.Option(help="Write the figures here as JSON.", show_default=False)
    ] = None,
    chart: Annotated[
        Path | None, typer.Option(help="Draw them here as PNG.", show_default=False)
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            help="A folder in BEIR layout (corpus.jsonl, queries.jsonl, qrels/train.tsv, "
            "qrels/test.tsv); default: the documentation of this Python's standard library.",
            show_default=False,
        ),
    ] = None,
    turns: Annotated[int, typer.Option(min=1, help="How often it learns.")] = 2,
    seed: Annotated[int, typer.Option(help="The same seed gives the same run.")] = 0,
    agents: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many agents work in a turn; default: two for every need.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run the whole loop on this machine.

    Agents search, Kafka, mining, training, the gate and Milvus do the rest. The agents are scripted
    (no LLM). They search, browse, reason, sometimes wrongly, and get a better retriever with every
    turn; all figures are measured on questions that no agent ever asked. Takes about eight minutes
    on two cores and leaves nothing behind.

    \b
    Examples:
      retrail demo --report demo-report.json --chart demo-report.png
      retrail demo --corpus beir/scifact --turns 3
    """
    from simulation.demo.command import run

    run(report=report, chart=chart, corpus=corpus, turns=turns, seed=seed, agents=agents)
