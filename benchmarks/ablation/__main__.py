"""What judging and weighting are worth: LRAT's naive, filter and reweight beside the truth.

    python -m benchmarks.ablation --runs ablation.jsonl
    python -m benchmarks.ablation --runs ablation.jsonl --corpus medquad/ --seeds 5
    python -m benchmarks.ablation --runs ablation.jsonl --table-only --chart ablation.png

1. For each seed scripted agents search with the untrained retriever, once; their trajectories are
   judged and mined, once. No server takes part: search is exact and in memory.
2. From these trajectories children are trained with equal settings: `naive` (every browsed document
   is a positive), `filter` (those judged relevant), `reweight` (these, weighted by the length of
   the reasoning), and `oracle` (the same searches with a document that truly serves the need).
   All have as many pairs and steps. Not by default: `naive-whole` has all its pairs, and `paper`
   is `reweight` with pairs of the profile `paper`, `full` has the true labels of all needs that
   agents had and trains until a held-back part stops improving. Levers of
   `benchmarks/ablation/levers.py` are added to `reweight`, alone or joined, such as `hard+passes`:
   `earlier`, `spans`, `hard`, `masked`, `passes`, `agree`, `correct`, `plausible`, `explore`.
3. `--second-turn`: agents search with a child of `earlier`, children are trained from that one, and
   the pairs of the first turn are replayed.
4. Each child is measured on the needs that no agent had; the gate is not applied.

Every finished run is one line of the file `--runs`; a second call continues after the last one.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from benchmarks import campaign, kept
from benchmarks.ablation import chart, tables
from benchmarks.ablation.runs import Run, runs
from benchmarks.ablation.turns import FULL, LEVERS, ORACLE, VARIANTS, World, levers_of
from retrail_runtime import process

ROWS = ("parent", "reweight", "oracle", "filter", "naive")
CHOICES = tuple(dict.fromkeys([*ROWS, *VARIANTS, FULL]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the missing runs, then print the table of all runs in the file."""
    options = _parser().parse_args(arguments)
    process.configure("WARNING")
    if options.threads:
        torch.set_num_threads(options.threads)
    if not options.table_only:
        _run(options)
    found = read(options.runs)
    for line in tables.markdown(found):
        print(line)
    if options.chart:
        campaign.panels(tables.comparisons(found), chart.panel, options.chart)
        print(f"written: {options.chart}")


def _run(options: argparse.Namespace) -> None:
    corpus = campaign.corpus_of(options)
    seeds = campaign.seeds_of(options)
    turn = corpus.name, 2 if options.second_turn else 1
    done = {(run.seed, run.variant) for run in read(options.runs) if (run.corpus, run.turn) == turn}
    left = [(s, v) for s in seeds for v in options.variants if (s, v) not in done]
    print(f"{corpus.name}: {len(left)} runs to do", flush=True)
    began = time.monotonic()
    missing = runs(World(corpus, _say), seeds, options.variants, done, second=options.second_turn)
    for finished, run in enumerate(missing, start=1):
        kept.append(options.runs, asdict(run))
        each = (time.monotonic() - began) / finished
        mean = sum(run.ndcg) / len(run.ndcg)
        print(
            f"seed {run.seed} {run.variant}: nDCG@10 {mean:.4f}, {run.pairs} pairs, "
            f"{run.true:.1%} true, {run.steps} steps, {run.seconds:.0f} s; about "
            f"{each * (len(left) - finished) / 60:.0f} min left",
            flush=True,
        )


def read(path: Path) -> list[Run]:
    """The runs that a file holds."""
    return [Run(**fields) for fields in kept.read(path)]


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = campaign.parser("ablation", __doc__)
    parser.add_argument("--variants", nargs="+", default=list(ROWS), type=_variant)
    parser.add_argument("--second-turn", action="store_true", help="from a child of a first turn")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: as many as it likes")
    return parser


def _variant(name: str) -> str:
    if name not in CHOICES and not levers_of(name.removeprefix(f"{ORACLE}+")):
        known = ", ".join((*CHOICES, *LEVERS))
        raise argparse.ArgumentTypeError(f"{name!r} is none of {known}; levers are joined by +")
    return name


if __name__ == "__main__":
    main()
