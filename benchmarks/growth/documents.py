"""An index worker from a release to its alias, and four idle workers."""

import re
import time
import urllib.request
from pathlib import Path

from benchmarks.index.world import Figures, Worker, World
from deploy.processes import free_ports

IDLE_SECONDS = 60.0
SETTLED_SECONDS = 20.0
ROLES = ("judge", "mine", "train", "index")
MILVUS = "retrail_index_milvus_duration_seconds"


def release(world: World, *, first: bool) -> Figures:
    """Build and swap in one release with one worker.

    Args:
        first: measure the build of the first release, otherwise that of the second.
    """
    worker = started(world, "index")
    if first:
        world.await_live()
    else:
        world.await_alias(world.version)
        world.release()
    version, before, began = world.version, worker.metrics(), time.perf_counter()
    if not first:
        world.make_live(version)
    world.await_rows(version)
    written = time.perf_counter() - began
    world.await_alias(version)
    seconds = time.perf_counter() - began
    time.sleep(1)
    after = worker.metrics()

    def spent(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    encoding = spent("retrail_encoder_duration_seconds_sum")
    upserting = spent(f'{MILVUS}_sum{{call="upsert"}}')
    encoded = after.get(f'retrail_index_documents_encoded_total{{version="{version}"}}', 0.0)
    return {
        "release to alias, s": seconds,
        "of it until all rows are written, s": written,
        "encoding, s": encoding,
        "upserting, s": upserting,
        "neither": 1 - (encoding + upserting) / seconds,
        "flush, s": spent(f'{MILVUS}_sum{{call="flush"}}'),
        "query, s": spent(f'{MILVUS}_sum{{call="query"}}'),
        "encodings per document": encoded / world.count,
        "index worker, peak MB": worker.peak(),
    }


def idle(world: World) -> Figures:
    """Share of a core of each worker, and Milvus calls a second, while nothing happens."""
    workers = {role: started(world, role) for role in ROLES if role != "index"}
    workers["index"] = next((w for w in world.workers if w.role == "index"), None) or started(
        world, "index"
    )
    world.await_alias(world.version)
    time.sleep(SETTLED_SECONDS)
    before = {role: (worker.cpu(), worker.metrics()) for role, worker in workers.items()}
    time.sleep(IDLE_SECONDS)
    figures: Figures = {}
    calls = 0.0
    for role, worker in workers.items():
        cpu, metrics = before[role]
        figures[f"{role}, share of a core"] = (worker.cpu() - cpu) / IDLE_SECONDS
        figures[f"{role}, peak MB"] = worker.peak()
        now = worker.metrics()
        calls += sum(
            value - metrics.get(name, 0.0)
            for name, value in now.items()
            if name.startswith(f"{MILVUS}_count")
        )
    return figures | {"Milvus calls a second": calls / IDLE_SECONDS}


class Observed(Worker):
    """A worker whose metrics and process are read."""

    def __init__(self, world: World, role: str) -> None:
        (self._port,) = free_ports(1)
        settings = world.settings.model_copy(update={"metrics_port": self._port})
        log_file = world.folder / f"{role}-{len(world.workers)}.log"
        super().__init__(settings, log_file, role)

    def metrics(self) -> dict[str, float]:
        """The samples of its metrics page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=30) as page:
            lines = page.read().decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def cpu(self) -> float:
        """Seconds of CPU time, of user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def peak(self) -> float:
        """Largest resident memory so far, in MB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) / 1024


def started(world: World, role: str) -> Observed:
    """One more worker."""
    worker = Observed(world, role)
    world.workers.append(worker)
    return worker
