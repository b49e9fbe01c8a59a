"""Rows a second from the topic into a collection, beside a bare loop over the same rows."""

import subprocess
import sys
import time

from benchmarks.index import bare
from benchmarks.index.world import ROOT, Figures, World


def refresh(world: World) -> Figures:
    """Rows/s through index workers, beside bare encode + bare pymilvus upsert of the same rows.

    The bare loop reads nothing from Kafka and keeps no offsets; it runs before and after the
    worker, and the mean of both is the reference. Rates leave out the start: from the first rows
    that are written and committed to the last. Every build has a model of its own, so that no
    worker finds a vector that it encoded before.
    """
    before = bare_loop(world)
    one = rebuild(world)
    after = bare_loop(world)
    world.start_worker()
    two = rebuild(world)
    world.workers.pop().end()
    base = (before + after) / 2
    return {
        "bare encode + upsert, before, rows/s": before,
        "bare encode + upsert, after, rows/s": after,
        "one worker, rows/s": one["rows/s"],
        "one worker / bare": one["rows/s"] / base,
        "two workers, rows/s": two["rows/s"],
        "two workers / one": two["rows/s"] / one["rows/s"],
        "one worker, from `live` to the swap, s": one["seconds"],
        "two workers, from `live` to the swap, s": two["seconds"],
    }


def rebuild(world: World) -> Figures:
    """Make a new release live, and wait until the workers have built and swapped it."""
    version = world.release()
    began = time.perf_counter()
    world.make_live(version)
    marks = world.await_rows(version)
    (first, first_rows), (last, last_rows) = marks[0], marks[-1]
    world.await_alias(version)
    return {
        "rows/s": (last_rows - first_rows) / (last - first),
        "seconds": time.perf_counter() - began,
    }


def bare_loop(world: World) -> float:
    """Rows/s of :mod:`benchmarks.index.bare` in a process of its own."""
    settings = world.settings
    arguments = [settings.milvus_uri, settings.model, str(world.count)]
    command = [sys.executable, "-m", bare.__name__, *arguments]
    run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(run.stdout.split()[-1])
