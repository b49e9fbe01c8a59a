"""Agents in processes of their own: exits, forks, worker pools, imports."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.retrail.conftest import Cluster

ROOT = Path(__file__).parents[2]


def run_agent(
    script: str, *arguments: str, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run an agent of its own, as users do."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


PUBLISH = """
import sys
from retrail import Publisher, Timeout
publisher = Publisher(
    "a", bootstrap=sys.argv[1], topic_prefix=sys.argv[2], timeout=Timeout(close=2)
)
trajectory = publisher.trajectory("t")
for number in range(100):
    trajectory.browse(str(number))
"""


def test_the_end_of_the_process_delivers(mock_cluster: Cluster, prefix: str) -> None:
    done = run_agent(PUBLISH, mock_cluster.bootstrap, prefix)
    assert (done.returncode, done.stderr) == (0, "")
    events = mock_cluster.events(f"{prefix}trajectory-events", 100)
    assert [event["seq"] for event in events] == list(range(100))


def test_the_end_of_the_process_waits_only_so_long(closed_port: str) -> None:
    started = time.monotonic()
    done = run_agent(PUBLISH, closed_port, "x_")
    assert time.monotonic() - started >= 2
    assert done.returncode == 0
    assert "the publisher was closed before the broker took it" in done.stderr
    assert "100 events were not delivered" in done.stderr


FORK = """
import os, sys
from retrail import Publisher
publisher = Publisher("a", bootstrap=sys.argv[1], topic_prefix=sys.argv[2])
with publisher.trajectory("parent") as trajectory:
    for number in range(500):
        trajectory.browse(str(number))
    children = []
    for name in ("one", "two"):
        child = os.fork()
        if child == 0:
            assert publisher.stats.published == 0
            with publisher.trajectory(name) as own:
                own.browse("a")
            sys.exit(0)
        children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
print(publisher.flush(), publisher.stats)
"""


def test_a_forked_child_publishes_its_own_and_nothing_twice(
    mock_cluster: Cluster, prefix: str
) -> None:
    done = run_agent(FORK, mock_cluster.bootstrap, prefix)
    assert done.returncode == 0, done.stderr
    assert "published=501, delivered=501, failed=0" in done.stdout
    events = mock_cluster.events(f"{prefix}trajectory-events", 505)
    seqs = {
        name: [event["seq"] for event in events if event["trajectory_id"] == name]
        for name in ("parent", "one", "two")
    }
    assert seqs == {"parent": list(range(501)), "one": [0, 1], "two": [0, 1]}


POOL = """
import multiprocessing, sys
from retrail import Publisher

def work(name):
    with publisher.trajectory(name) as trajectory:
        trajectory.browse("a")

if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    publisher = Publisher("a", bootstrap=sys.argv[1], topic_prefix=sys.argv[2])
    workers = [multiprocessing.Process(target=work, args=(f"t{n}",)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
"""


def test_multiprocessing_workers_deliver_at_their_end(mock_cluster: Cluster, prefix: str) -> None:
    done = run_agent(POOL, mock_cluster.bootstrap, prefix)
    assert done.returncode == 0, done.stderr
    events = mock_cluster.events(f"{prefix}trajectory-events", 6)
    assert {event["trajectory_id"] for event in events} == {"t0", "t1", "t2"}


KILLED = """
import os, signal, sys
from retrail import Publisher
publisher = Publisher("a", bootstrap=sys.argv[1], topic_prefix=sys.argv[2])
trajectory = publisher.trajectory("t")
trajectory.search("q", ["d1"])
trajectory.end("correct", flush=30.0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_end_that_flushes_leaves_nothing_to_a_signal(mock_cluster: Cluster, prefix: str) -> None:
    """A pool that is left by its block kills its processes so."""
    assert run_agent(KILLED, mock_cluster.bootstrap, prefix).returncode == -signal.SIGKILL
    events = mock_cluster.events(f"{prefix}trajectory-events", 2)
    assert [event["type"] for event in events] == ["search", "end"]


def test_the_client_needs_nothing_but_confluent_kafka() -> None:
    script = """
import sys
import retrail
ours = {"schemas", "streams", "trainer", "consumers", "serving", "simulation", "deploy"}
ours |= {"retrail_runtime", "retrail_cli"}
heavy = {"pydantic", "typer", "rich", "orjson", "structlog", "torch", "pymilvus", "faust", "httpx"}
print(sorted((ours | heavy) & {name.partition(".")[0] for name in sys.modules}))
"""
    done = run_agent(script)
    assert done.stdout.strip() == "[]", done.stderr
