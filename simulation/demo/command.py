"""``retrail demo``: runs the loop on a temporary installation, writes a report and a chart."""

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from confluent_kafka import KafkaException
from pymilvus import MilvusException
from rich.console import Console

from deploy import topics
from deploy.errors import StackError
from deploy.stack import LocalStack
from retrail_runtime import milvus
from retrail_runtime.milvus import version_of
from retrail_runtime.process import StopSignals, interrupt
from schemas.errors import EXIT_INTERRUPTED, BrokerUnavailableError, MilvusUnavailableError
from schemas.settings import Settings, load
from simulation import stdlib_corpus
from simulation.corpus import load_beir, require_fitting
from simulation.demo.report import Report, require_writable, write
from simulation.demo.view import REMINDER, View


def run(
    *,
    report: Path | None,
    chart: Path | None,
    corpus: Path | None,
    turns: int,
    seed: int,
    agents: int | None,
) -> Report:
    """Run the demo; returns when everything is stopped and removed, and the outputs are written.

    Args:
        report: file for the figures as JSON.
        chart: file for the figures as PNG.
        corpus: a BEIR folder; ``None``: the standard library's documentation.
        turns: number of trainings.
        seed: of all random draws.
        agents: in each turn; ``None``: two for every need.

    Raises:
        InputError: the corpus cannot be read, or a file cannot be written.
        StackError: a signal ended it.
        RetrailError: a stage did not run.
    """
    from simulation.demo.chart import draw
    from simulation.demo.flywheel import Flywheel, Plan

    outputs = [path for path in (report, chart) if path is not None]
    require_writable(outputs)
    view = View(Console())
    found = stdlib_corpus.load() if corpus is None else load_beir(corpus)
    require_fitting(found.documents)
    plan = Plan.of(found, turns, seed, agents)
    with view.showing():
        view.say(f"Retrail demo. {REMINDER}")
        view.say(
            f"{found.name}: {len(found.documents):,} documents, {len(found.training):,} needs for "
            f"agents, {len(found.unseen):,} never seen. {turns} turns of {plan.agents:,} agents, "
            f"seed {seed}."
        )
        for message in found.left_out:
            view.say(f"left out: {message}")
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


log = structlog.get_logger(__name__)

WORKERS = ("judge", "mine", "index")
"""Without a trainer: a turn trains once all its trajectories are mined."""

DEFAULTS: dict[str, Any] = {
    "partitions": 2,
    "train_epochs": 1,
    # Half of the pairs of a later turn are earlier ones: with fewer, it forgot the first turn.
    "train_replay": 1.0,
    "train_learning_rate": 5e-5,
    "train_negatives": 2,
    "index_max_tokens": 128,
    # The miner remembers a closed trajectory for this long, and a turn waits for that.
    "mine_gap_seconds": 1.0,
    "gate_margin": 0.05,
    "gate_min_queries": 20,
}
"""Defaults for a run of minutes; ``RETRAIL_…`` variables override them."""


def settings_for_a_run(seed: int, folder: Path) -> Settings:
    """The user's settings (broker, Milvus, model, judge, …) with random names.

    Raises:
        ConfigurationError: a ``RETRAIL_…`` variable cannot be used.
    """
    name = f"demo_{secrets.token_hex(4)}"
    chosen = load()
    mine: dict[str, Any] = {
        "topic_prefix": f"{name}_",
        "revision": "",
        "retriever": name,
        "data_dir": folder,
        "registry": None,
        "metrics_port": 0,
        "train_seed": seed,
        "gate": "auto",
    }
    defaults = {key: value for key, value in DEFAULTS.items() if key not in chosen.model_fields_set}
    return chosen.model_copy(update=defaults | mine)


def gate_note(settings: Settings) -> str:
    """A message about how the gate of a run differs from the defaults."""
    margin, queries = (
        Settings.model_fields[name].default for name in ("gate_margin", "gate_min_queries")
    )
    return (
        f"The gate: margin {settings.gate_margin:g} and at least {settings.gate_min_queries} "
        "held-out queries, because a short run has few of them (the defaults are "
        f"{margin:g} and {queries})."
    )


@contextmanager
def installation(seed: int, announce: Callable[[str], None]) -> Iterator[LocalStack]:
    """A running stack; afterwards it is stopped, and everything that it created is removed.

    Ctrl-C, SIGTERM and SIGHUP end the block; a second signal kills the processes. Main thread only.

    Args:
        seed: of training.
        announce: called with messages about what happens.

    Raises:
        ConfigurationError: a ``RETRAIL_…`` variable cannot be used.
        StackError: the stack does not start, or a signal ended the block (status 130).
    """
    folder = Path(tempfile.mkdtemp(prefix="retrail-demo-"))
    stack = LocalStack(settings_for_a_run(seed, folder), WORKERS, announce=announce)
    signals = StopSignals(interrupt, again=stack.send_kill)
    reachable = True
    try:
        with signals:
            try:
                stack.start()
                yield stack
            except KeyboardInterrupt:
                announce("stopping and removing everything (press Ctrl-C again to kill it)")
                raise StackError(
                    "Stopped before the end; everything was removed.", exit_status=EXIT_INTERRUPTED
                ) from None
            except (BrokerUnavailableError, MilvusUnavailableError):
                reachable = False
                raise
            finally:
                signals.stopping = True
                stack.stop()
                if reachable:
                    remove(stack)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove(stack: LocalStack) -> None:
    """Delete topics, groups, collections and alias from servers that the stack did not start."""
    settings, started = stack.settings, stack.started
    try:
        if "RETRAIL_KAFKA_BOOTSTRAP" not in started:
            topics.remove(settings)
        if "RETRAIL_MILVUS_URI" not in started:
            remove_collections(settings)
    except (KafkaException, MilvusException, MilvusUnavailableError) as error:
        log.warning(
            "could not remove all topics, groups and collections",
            topics_and_groups=f"{settings.topic_prefix}*",
            collections=f"{settings.retriever}_v*",
            error=str(error),
        )


def remove_collections(settings: Settings) -> None:
    """Drop the retriever's alias and every collection of its builds.

    Raises:
        MilvusException, MilvusUnavailableError: Milvus does not answer or refuses.
    """
    client = milvus.connect(settings)
    try:
        try:
            client.drop_alias(settings.retriever, timeout=milvus.CALL_TIMEOUT)
        except MilvusException as error:
            if not milvus.is_missing(error):
                raise
        for name in client.list_collections(timeout=milvus.CALL_TIMEOUT):
            if version_of(settings.retriever, name) is not None:
                client.drop_collection(name, timeout=milvus.CALL_TIMEOUT)
    finally:
        client.close()
