"""How fast documents become searchable, and how fast searches are, beside bare pymilvus.

    python -m benchmarks.index                               10,000 and 100,000 documents
    python -m benchmarks.index --documents 10000             smaller
    python -m benchmarks.index --only latency swap           some of it
    python -m benchmarks.index --output figures.json

Starts Apache Kafka and Milvus Lite of its own. Documents are short made-up texts, and each release
is one layer of MiniLM (384 dimensions). All documents are encoded six times at each size: by the
first build, four times in `refresh`, once in `swap`. Absolute figures depend on the machine; quote
the ratios.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Before torch: threads that wait must not keep the servers from the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Each process encodes with half of the cores, the bare loop too: a second worker finds some.
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))

from benchmarks.index import refresh, searching, swapping
from benchmarks.index.world import Figures, World, world
from retrail_runtime import process

SECTIONS: dict[str, Callable[[World], Figures]] = {
    "refresh": refresh.refresh,
    "latency": searching.latency,
    "callers": searching.callers,
    "swap": swapping.swap,
}


def main() -> None:
    """Run the chosen sections at each size, print and save their figures."""
    # The servers stop in good order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.index",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--documents", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--output", type=Path, help="write the figures here, too, as JSON")
    options = parser.parse_args()
    process.configure("WARNING")
    figures: dict[str, dict[str, Figures]] = {}
    for count in options.documents:
        sized = figures[str(count)] = {}
        with world(count) as made:
            print(f"\n{count:,} documents: the first build", flush=True)
            began = time.perf_counter()
            made.start_worker()
            made.await_rows(made.version)
            made.await_alias(made.version)
            print(f"  {time.perf_counter() - began:.0f} s", flush=True)
            for name in options.only:
                doc = (SECTIONS[name].__doc__ or "").splitlines()[0]
                print(f"\n{count:,} documents, {name}: {doc}", flush=True)
                began = time.perf_counter()
                figures_of_it = SECTIONS[name](made)
                taken = {"taken in, s": time.perf_counter() - began}
                sized[name] = figures_of_it | taken
                for label, value in sized[name].items():
                    print(f"  {label:<52} {value:>12,.2f}", flush=True)
                if options.output:
                    options.output.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
