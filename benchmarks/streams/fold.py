"""The fold without Kafka: events a second, the time to fold again, and memory."""

import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.streams.brokers import Figures
from benchmarks.streams.logs import STEPS, interleaved, judged
from streams.mine.fold import Fold

OPEN = (1_000, 10_000, 100_000)


def fold_alone(events: int) -> Figures:
    """Events a second by how many trajectories are open, and seconds to fold 100,000 again."""
    figures: Figures = {}
    for open_at_once in OPEN:
        figures[f"{open_at_once:,} open: events/s"] = _fold(open_at_once, events)
    figures["100,000 open / 1,000 open"] = (
        figures["100,000 open: events/s"] / figures["1,000 open: events/s"]
    )
    figures["100,000 open x 20 events, replayed: s"] = _replay(100_000)
    return figures


def _fold(open_at_once: int, events: int) -> float:
    """Time goes to the fold alone: each event is made, and not kept, outside the clock."""
    trajectories = max(open_at_once, events // (STEPS + 1))
    fold, seconds, count = Fold(), 0.0, 0
    for offset, (_, value) in enumerate(judged(interleaved(trajectories, open_at_once))):
        started = time.perf_counter()
        fold.apply(offset, 0, value)
        seconds += time.perf_counter() - started
        count += 1
    return count / seconds


def _replay(trajectories: int) -> float:
    fold, seconds = Fold(), 0.0
    for offset, (_, value) in enumerate(judged(interleaved(trajectories, trajectories))):
        if offset >= trajectories * STEPS:
            break
        started = time.perf_counter()
        fold.apply(offset, 0, value, silent=True)
        seconds += time.perf_counter() - started
    return seconds


def memory(_: int) -> Figures:
    """Bytes for an open trajectory of 20 events; each count in a process of its own."""
    figures = {}
    for count in (10_000, 100_000):
        command = [sys.executable, "-m", "benchmarks.streams", "--measure-memory", str(count)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        figures[f"{count:,} open"] = float(output)
    return figures


def measure_memory(count: int) -> None:
    """Print the growth of this process a trajectory, in bytes."""
    fold = Fold()
    before = _resident_bytes()
    for offset, (_, value) in enumerate(judged(interleaved(count, count))):
        if offset >= count * STEPS:
            break
        fold.apply(offset, 0, value)
    assert fold.open_trajectories == count
    print((_resident_bytes() - before) / count)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
