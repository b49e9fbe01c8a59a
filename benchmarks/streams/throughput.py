"""Workers from topic to topic, beside other ways to do the same work."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.streams.brokers import (
    RIVALS,
    Figures,
    Testbed,
    rate,
    testbed,
    worker,
    write,
    write_small_batches,
)
from benchmarks.streams.logs import judged, opened_by_a_whole_one, published
from deploy import topics as topics_module
from streams.mine.fold import Fold

OPEN_AT_ONCE = 1_000
MOST_IN_TRANSACTIONS = 100_000
"""Each transaction takes the producer some milliseconds."""
QUIXSTREAMS = "quixstreams==3.28.1"


def throughput(events: int) -> Figures:
    """One miner from topic to topic, beside Faust, quixstreams and a bare loop; two beside one."""
    figures: Figures = {}
    trajectories = events // 21
    log = [value for _, value in judged(opened_by_a_whole_one(trajectories, OPEN_AT_ONCE))]
    fold = Fold()
    pairs = sum(len(fold.apply(offset, 0, value)) for offset, value in enumerate(log))
    with testbed() as b:
        source = b.topics.judged_events
        bootstrap = b.settings.kafka_bootstrap
        write(source, judged(opened_by_a_whole_one(trajectories, OPEN_AT_ONCE)), bootstrap)

        def rival(name: str, python: str, script: str, outputs: int, *arguments: str) -> None:
            target = b.output_topic(f"{name}-out")
            env = {"SOURCE": source, "TARGET": target, "GROUP": f"bench-{name}"}
            command = [python, str(RIVALS / script), *arguments]
            figures[name] = rate(b, name, [(command, env)], target, len(log), outputs)

        faust_arguments = ("worker", "-l", "warn", "--without-web")
        rival(
            "faust-pass-through", sys.executable, "faust_passthrough.py", len(log), *faust_arguments
        )
        rival("quixstreams-stateful", _quixstreams(), "quix_stateful.py", trajectories)
        rival("bare-loop-same-miner", sys.executable, "bare_miner.py", pairs)
        for count in (1, 2):
            revised = b.settings.model_copy(update={"topic_prefix": f"m{count}_"})
            topics_module.ensure(revised)
            mine = Testbed(revised, b.folder)
            write(
                mine.topics.judged_events,
                judged(opened_by_a_whole_one(trajectories, OPEN_AT_ONCE)),
                bootstrap,
            )
            commands = [(worker("mine"), {}) for _ in range(count)]
            figures[f"miner, {count} worker{'s' * (count > 1)}"] = rate(
                mine, f"mine{count}", commands, mine.topics.labelled_pairs, len(log), pairs
            )
    return beside(figures, ("faust-pass-through", "quixstreams-stateful", "bare-loop-same-miner"))


def judging(events: int) -> Figures:
    """One local judge from topic to topic, beside Faust's pass-through."""
    trajectories = events // 21
    with testbed() as b:
        source, bootstrap = b.topics.trajectory_events, b.settings.kafka_bootstrap
        count = write(
            source, published(opened_by_a_whole_one(trajectories, OPEN_AT_ONCE)), bootstrap
        )
        target = b.output_topic("pass-through-out")
        env = {"SOURCE": source, "TARGET": target, "GROUP": "bench-pass-through"}
        script = [sys.executable, str(RIVALS / "faust_passthrough.py")]
        command = [*script, "worker", "-l", "warn", "--without-web"]
        base = rate(b, "pass-through", [(command, env)], target, count, count)
        judge = rate(b, "judge", [(worker("judge"), {})], b.topics.judged_events, count, count)
    return beside({"faust-pass-through": base, "judge, 1 worker": judge}, ("faust-pass-through",))


def transactions(events: int) -> Figures:
    """One local judge over the same events: large batches, batches of ten, transactions of ten."""
    events = min(events, MOST_IN_TRANSACTIONS)
    figures: Figures = {}
    for name in ("large batches", "batches of 10", "transactions of 10"):
        with testbed() as b:
            source, bootstrap = b.topics.trajectory_events, b.settings.kafka_bootstrap
            log = published(opened_by_a_whole_one(events // 21, OPEN_AT_ONCE))
            if name == "large batches":
                count = write(source, log, bootstrap)
            else:
                in_transactions = name == "transactions of 10"
                count = write_small_batches(
                    source, log, bootstrap, 10, transactions=in_transactions
                )
            commands = [(worker("judge"), {})]
            figures[name] = rate(b, "judge", commands, b.topics.judged_events, count, count)
            warnings = (b.folder / "judge.log").read_text().count("not continuous")
            figures[f"{name}: warnings of offsets"] = float(warnings)
    rates = {name: rate for name, rate in figures.items() if "warnings" not in name}
    return figures | beside(rates, ("large batches", "batches of 10"))


def beside(rates: Figures, bases: tuple[str, ...]) -> Figures:
    """The rates, and each as a multiple of each base; printed as one table."""
    ratios = {f"{name} / {base}": rates[name] / rates[base] for name in rates for base in bases}
    print(f"  {'events/s':>34}" + "".join(f"{'x ' + base:>24}" for base in bases))
    for name, rate_of_it in rates.items():
        row = "".join(f"{ratios[f'{name} / {base}']:>24.2f}" for base in bases)
        print(f"  {name:<22} {rate_of_it:>11,.0f}{row}")
    return rates | ratios


def _quixstreams() -> str:
    """Python of a virtual environment with quixstreams."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "retrail" / "quixstreams-venv"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "-q", QUIXSTREAMS], check=True)
    return str(python)
