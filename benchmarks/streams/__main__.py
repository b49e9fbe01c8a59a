"""How fast the stream workers are, beside others, in one run on one Apache Kafka.

    python -m benchmarks.streams                       everything (about 12 minutes on 2 cores)
    python -m benchmarks.streams --only fold memory    some of it
    python -m benchmarks.streams --events 50000        smaller
    python -m benchmarks.streams --output figures.json

Absolute figures depend on the machine; quote the ratios. The quixstreams application runs in a
virtual environment of its own under the user's cache directory.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from benchmarks.streams import delays, fold, spans, throughput
from benchmarks.streams.brokers import Figures

SECTIONS: dict[str, Callable[[int], Figures]] = {
    "fold": fold.fold_alone,
    "memory": fold.memory,
    "miner": throughput.throughput,
    "judge": throughput.judging,
    "transactions": throughput.transactions,
    "latency": delays.latency,
    "recovery": delays.recovery,
    "otlp": spans.otlp,
}


def main() -> None:
    """Run the chosen sections, print and save their figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--events", type=int, default=300_000, help="of each log")
    parser.add_argument("--output", type=Path, help="write the figures here, too, as JSON")
    parser.add_argument("--measure-memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure_memory:
        fold.measure_memory(options.measure_memory)
        return
    figures: dict[str, Figures] = {}
    for name in options.only:
        print(f"\n{name}: {SECTIONS[name].__doc__}", flush=True)
        figures[name] = SECTIONS[name](options.events)
        for label, value in figures[name].items():
            print(f"  {label:<44} {value:>14,.2f}", flush=True)
        if options.output:
            options.output.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
