"""What grows with documents and pairs: time, memory, encodings; and what idle workers cost.

    python -m benchmarks.growth --documents 20000 100000 --pairs 10000 100000 1000000
    python -m benchmarks.growth --documents 1000000 --milvus standalone --first --pairs
    python -m benchmarks.growth --documents 20000 --first --layers 6 --pairs    the default model
    python -m benchmarks.growth --chart growth.png --output growth.json         with a plot

Each number of documents gets servers of its own, and a model of one layer (benchmarks.index). Each
number of pairs is written into a trainer's local copies without a broker, with 10,000 new ones.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

# Before torch: threads that wait must not keep the servers from the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))

from benchmarks.growth import documents, pairs
from benchmarks.growth.chart import draw
from benchmarks.index.world import ROOT, Figures, world
from deploy.milvus import MilvusLite
from retrail_runtime import process
from tests.servers.milvus_standalone import MilvusStandalone

NEW_PAIRS = 10_000
MILVUS = {"lite": MilvusLite, "standalone": MilvusStandalone}


def main() -> None:
    """Measure the chosen sizes, print and save the figures."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--documents", nargs="*", type=int, default=[10_000, 100_000])
    parser.add_argument("--pairs", nargs="*", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--milvus", choices=MILVUS, default="lite")
    parser.add_argument(
        "--first", action="store_true", help="measure the first build; takes half the time"
    )
    parser.add_argument(
        "--layers", type=int, default=1, help="of the first model, whose build --first measures"
    )
    parser.add_argument("--idle", action="store_true", help="measure idle workers, too")
    parser.add_argument("--output", type=Path, help="write the figures here, too, as JSON")
    parser.add_argument("--chart", type=Path, help="draw the growth here, as PNG")
    options = parser.parse_args()
    process.configure("WARNING")
    figures: dict[str, dict[str, Figures]] = {"documents": {}, "pairs": {}}
    for count in options.documents:
        with world(count, MILVUS[options.milvus], options.layers) as made:
            found = documents.release(made, first=options.first)
            if options.idle:
                found |= documents.idle(made)
        keep(figures, "documents", count, found, options.output)
    for count in options.pairs:
        keep(figures, "pairs", count, of_pairs(count), options.output)
    if options.chart:
        draw(figures, options.chart)


def of_pairs(count: int) -> Figures:
    """The figures of :mod:`benchmarks.growth.pairs`, from a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [str(count), str(min(count, NEW_PAIRS)), folder]
        command = [sys.executable, "-m", pairs.__name__, *arguments]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def keep(
    figures: dict[str, dict[str, Figures]], what: str, count: int, found: Figures, path: Path | None
) -> None:
    """Print figures, and add them to the file."""
    print(f"\n{count:,} {what}", flush=True)
    for label, value in found.items():
        print(f"  {label:<44} {value:>12,.3f}", flush=True)
    figures[what][str(count)] = found
    if path:
        path.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
