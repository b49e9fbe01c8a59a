"""Real agents under real instrumentation packages give the pairs of our own client."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from streams.importing.tools import ToolMap
from streams.spans.understanding import understood
from tests.serving.fakes import World
from tests.serving.live import listening
from tests.streams.spans.agents import DOCUMENTS
from tests.streams.spans.recordings import (
    RECORDED,
    SERVED,
    essence,
    lines_of,
    own_client,
    pairs_of,
)

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


@pytest.mark.dist
@pytest.mark.timeout(900)
def test_the_packages_still_write_what_was_recorded(tmp_path: Path) -> None:
    """Builds an environment of the pinned packages, and runs every agent anew."""
    python = tmp_path / "venv" / "bin" / "python"
    requirements = Path(__file__).with_name("requirements.txt")
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, tmp_path / "venv"], check=True)
    subprocess.run(
        [*uv, "pip", "install", "-q", "--python", python, "-r", requirements], check=True
    )
    for name in RECORDED:
        framework, _, rest = name.rpartition("-") if name.endswith("retriever") else (name, "", "")
        agent, _, instrumentation = framework.rpartition("-")
        command = [python, "-m", "tests.streams.spans.agents", agent, instrumentation, rest]
        ran = subprocess.run(command, env=CAPTURE, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr[-3000:]
        assert essence(pairs_of(tmp_path, ran.stdout.splitlines())) == OWN, name
    for name in SERVED:
        world, instrumentation = World(), name.rpartition("-")[2]
        world.retriever.texts = dict(DOCUMENTS)
        with listening(world.app) as url:
            command = [
                python,
                "-m",
                "tests.streams.spans.agents",
                "langchain",
                instrumentation,
                url,
            ]
            ran = subprocess.run(command, env=CAPTURE, capture_output=True, text=True, check=True)
        [events] = world.log.events.values()
        kinds = [event[0] for event in events]
        assert [kinds.count(kind) for kind in ("search", "browse", "end")] == [3, 3, 1]
        assert pairs_of(tmp_path, ran.stdout.splitlines()) == []
