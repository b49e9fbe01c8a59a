"""Worker processes of one installation."""

import os
import secrets
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from deploy import topics as topics_module
from schemas.pairs import LabelledPair
from schemas.settings import Settings
from schemas.topics import Topics
from tests.streams.topics import mined_up_to, pairs_of, read
from tests.waiting import eventually

START = """
import sys
from schemas.errors import RetrailError
from retrail_runtime.process import configure
from schemas.settings import load
from streams.{package} import worker
configure()
{sabotage}
try:
    worker.run(load())
except RetrailError as error:
    print("ended:", error, file=sys.stderr)
    sys.exit(error.exit_status)
"""


def installation(kafka: str, folder: Path) -> Settings:
    """One of the test's own, without Milvus, whose topics exist."""
    settings = Settings(
        kafka_bootstrap=kafka,
        topic_prefix=f"t{secrets.token_hex(4)}_",
        data_dir=folder / "data",
        partitions=2,
        kafka_session_timeout=6.0,
    )
    topics_module.ensure(settings)
    return settings


@dataclass
class Worker:
    """One worker process."""

    role: str
    process: subprocess.Popen[bytes]
    log_file: Path
    data_dir: Path
    ended: bool = False

    @property
    def ports(self) -> list[int]:
        """The port of its metrics page; empty before it serves."""
        files = (self.data_dir / "run").glob(f"{self.role}-{self.process.pid}.metrics")
        return [int(text) for file in files if (text := file.read_text())]

    @property
    def log(self) -> str:
        """Its log so far."""
        return self.log_file.read_text()

    @property
    def working(self) -> bool:
        """Whether it has handled records; those that a miner folds again do not count."""
        counter = {
            "judge": "retrail_judge_events_total",
            "mine": "retrail_mine_events_total",
            "otlp": "retrail_otlp_requests_total",
        }[self.role]
        try:
            return bool(self.ports) and self.sample(counter) > 0
        except OSError:
            return False

    def page(self, path: str) -> tuple[int, str]:
        """Status and text of one of its pages; nothing before it serves any.

        Raises:
            OSError: it does not answer.
        """
        [port] = self.ports
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode().strip()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode().strip()

    def sample(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels, as its page shows them now."""
        _, text = self.page("/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and sample.labels.items() >= labels.items()
        )

    def wait(self, seconds: float = 20) -> int:
        """Its exit status."""
        self.ended = True
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.role} goes on:\n{self.log[-3000:]}") from None

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.ended = True
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def leave(self) -> None:
        """SIGTERM; asserts that it ends with 0, unless it was still starting."""
        working, status = self.working, self.stop()
        assert status == 0 or (status == -signal.SIGTERM and not working), self.log[-3000:]


class Fleet:
    """Starts workers of one installation."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.workers: list[Worker] = []
        self._folder = folder

    def start(self, role: str, sabotage: str = "", **variables: str) -> Worker:
        """A worker with the installation's settings; ``sabotage`` is Python run before it."""
        log_file = self._folder / f"{role}-{len(self.workers)}.log"
        shared = self.settings.model_dump(
            include={
                "kafka_bootstrap",
                "topic_prefix",
                "revision",
                "data_dir",
                "partitions",
                "kafka_session_timeout",
            }
        )
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("RETRAIL_")
        }
        environment |= {f"RETRAIL_{name.upper()}": str(value) for name, value in shared.items()}
        package = "spans" if role == "otlp" else role
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    START.format(package=package, sabotage=sabotage),
                ],
                env=environment | variables,
                stderr=log,
            )
        self.workers.append(Worker(role, process, log_file, self.settings.data_dir))
        return self.workers[-1]

    @property
    def living(self) -> list[Worker]:
        """The workers that run."""
        return [worker for worker in self.workers if worker.process.poll() is None]

    def finish(self) -> None:
        """Stop judges, let the miners come to the end of what these wrote, and stop them too.

        After this nothing more comes. Asserts that all end well.
        """
        self._stop(worker for worker in self.living if worker.role == "judge")
        judged = read(self.settings, Topics.of(self.settings).judged_events)
        ends = {message.partition(): message.offset() + 1 for message in judged}

        def all_mined() -> bool:
            mined = mined_up_to(self.settings)
            return all(mined.get(partition, 0) >= end for partition, end in ends.items())

        eventually(all_mined, 60, f"commits of the miners up to {ends}", interval=0.2)
        self._stop(self.living)

    def _stop(self, workers: Iterable[Worker]) -> None:
        for worker in workers:
            worker.leave()

    def kill_all(self) -> None:
        """Leave no process behind."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGCONT)
                worker.kill()

    def until_pairs(self, expected: dict[str, LabelledPair], seconds: float = 60) -> None:
        """Wait until every expected pair is on the topic."""

        def all_there() -> bool:
            for worker in self.workers:
                assert worker.ended or worker.process.poll() is None, worker.log[-3000:]
            return {pair.pair_id for pair in pairs_of(self.settings)} >= set(expected)

        eventually(all_there, seconds, f"all {len(expected)} pairs", interval=0.2)
