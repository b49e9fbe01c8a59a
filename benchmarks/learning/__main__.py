"""Whether the whole system learns, turn after turn, beside an oracle that knows every label.

    python -m benchmarks.learning --runs learning.jsonl
    python -m benchmarks.learning --runs learning.jsonl --corpus medquad/
    python -m benchmarks.learning --runs learning.jsonl --table-only --chart learning.png

For each seed the demo's flywheel turns over Apache Kafka, the workers and Milvus; then the oracle
learns from the same searches with the same trainer and settings, on as many examples, with the true
documents as labels, whenever the system shipped. Both are measured on the needs that no agent had,
and so is full supervision, which the first seed of a corpus trains.

Every finished seed is one line of the file `--runs`; a second call goes on behind the last one. A
seed of five turns takes 20 to 60 minutes on two cores.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from benchmarks import campaign, kept
from benchmarks.learning import chart, tables
from benchmarks.learning.runs import Run, Turn, alike, run
from retrail_runtime import process
from schemas.errors import RetrailError
from simulation.corpus import require_fitting
from simulation.demo.flywheel import Plan


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the missing runs, then print the table of all runs in the file."""
    options = _parser().parse_args(arguments)
    process.configure("WARNING")
    if not options.table_only:
        try:
            _run(options)
        except RetrailError as error:
            sys.exit(str(error))
    found = read(options.runs)
    for line in tables.markdown(found):
        print(line)
    if options.chart:
        campaign.panels(tables.learned(found), chart.panel, options.chart)
        print(f"written: {options.chart}")


def _run(options: argparse.Namespace) -> None:
    corpus = campaign.corpus_of(options)
    require_fitting(corpus.documents)
    before = read(options.runs)
    done = {(*alike(found), found.seed) for found in before}
    full = next((found.full for found in before if found.corpus == corpus.name and found.full), ())
    for seed in campaign.seeds_of(options):
        plan = Plan.of(corpus, options.turns, seed, options.agents)
        if (corpus.name, plan.agents, plan.turns, seed) not in done:
            found = run(plan, _say, full)
            full = found.full
            kept.append(options.runs, asdict(found))
            _say(f"seed {seed} took {found.seconds / 60:.1f} min")


def read(path: Path) -> list[Run]:
    """The seeds that a file holds."""
    return [_restored(fields) for fields in kept.read(path)]


def _restored(fields: dict[str, Any]) -> Run:
    turns = tuple(Turn(**turn) for turn in fields["turns"])
    return Run(**(fields | {"turns": turns}))


def _say(text: str) -> None:
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = campaign.parser("learning", __doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--agents", type=int, help="of each turn; by default two for every need")
    return parser


if __name__ == "__main__":
    main()
