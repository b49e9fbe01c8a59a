"""Real agents under real instrumentation packages give the pairs of our own client."""

import json
import random
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from streams.importing.tools import ToolMap
from streams.spans.understanding import understood
from tests.streams.spans.agents import langchain
from tests.streams.spans.recordings import (
    RECORDED,
    SERVED,
    essence,
    lines_of,
    own_client,
    pairs_of,
)
from tests.streams.spans.served import pairs_of_served

OWN = essence(own_client())
CAPTURE = {
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
    "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
    "OPENAI_API_KEY": "none",
}


def test_the_own_client_gives_three_pairs() -> None:
    assert [pair[:4] for pair in OWN] == [
        ("harbour lamp year", "d1", ("d3",), "irrelevant"),
        ("harbour lamp year", "d2", ("d1", "d3"), "relevant"),
        ("harbour lamp keeper", "d4", ("d2", "d3"), "relevant"),
    ]


@pytest.mark.parametrize("name", RECORDED)
def test_a_recording_gives_the_pairs_of_the_own_client(name: str, tmp_path: Path) -> None:
    lines, rng = lines_of(name), random.Random(name)
    in_order = pairs_of(tmp_path, lines)
    assert essence(in_order) == OWN
    shuffled = rng.sample(lines, len(lines))
    assert pairs_of(tmp_path, shuffled) == in_order
    repeated = rng.sample(lines * 2, len(lines) * 2)
    assert pairs_of(tmp_path, repeated) == in_order


def test_many_traces_in_one_request_give_the_pairs_of_each(tmp_path: Path) -> None:
    requests = [json.loads(line) for name in RECORDED for line in lines_of(name)]
    random.Random(0).shuffle(requests)
    whole = {"resourceSpans": [part for each in requests for part in each["resourceSpans"]]}
    pairs = pairs_of(tmp_path, [json.dumps(whole)])
    by_trace: dict[str, list] = {}
    for pair in pairs:
        by_trace.setdefault(pair.trajectory_id, []).append(pair)
    assert len(by_trace) == len(RECORDED)
    assert all(essence(own) == OWN for own in by_trace.values())


@pytest.mark.parametrize("name", SERVED)
def test_an_agent_behind_serve_with_our_handler_gives_no_pair_twice(
    name: str, tmp_path: Path
) -> None:
    """`retrail serve` published its events; its spans add none."""
    lines = lines_of(name)
    text = "\n".join(understood((line.encode() for line in lines), ToolMap.load()))
    assert "served 6" in text
    assert "0 trajectories" in text
    assert pairs_of(tmp_path, lines) == []


def test_an_agent_that_is_traced_and_served_and_has_our_handler_gives_every_pair_once(
    kafka: str, tmp_path: Path
) -> None:
    """The agent runs here, without instrumentation; its spans are those of three packages."""

    def run(url: str) -> list[str]:
        langchain(serve=url)
        return [line for name in SERVED for line in lines_of(name)]

    assert len(SERVED) == 3
    assert pairs_of_served(kafka, tmp_path, run, traces=3) == OWN


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a new environment with the pinned packages."""
    folder = tmp_path_factory.mktemp("packages") / "venv"
    requirements, found = Path(__file__).with_name("requirements.txt"), folder / "bin" / "python"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, folder], check=True)
    subprocess.run([*uv, "pip", "install", "-q", "--python", found, "-r", requirements], check=True)
    return found


def run(python: Path, *arguments: str) -> list[str]:
    """The spans of an agent."""
    command = [python, "-m", "tests.streams.spans.agents", *arguments]
    ran = subprocess.run(command, env=CAPTURE, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout.splitlines()


@pytest.mark.dist
@pytest.mark.timeout(900)
def test_the_packages_still_write_what_was_recorded(python: Path, tmp_path: Path) -> None:
    for name in RECORDED:
        framework, _, rest = name.rpartition("-") if name.endswith("retriever") else (name, "", "")
        agent, _, instrumentation = framework.rpartition("-")
        lines = run(python, agent, instrumentation, rest)
        assert essence(pairs_of(tmp_path, lines)) == OWN, name


@pytest.mark.dist
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SERVED)
def test_a_served_agent_under_a_package_gives_every_pair_once(
    name: str, python: Path, kafka: str, tmp_path: Path
) -> None:
    lines = partial(run, python, "langchain", name.rpartition("-")[2])
    assert pairs_of_served(kafka, tmp_path, lines) == OWN
