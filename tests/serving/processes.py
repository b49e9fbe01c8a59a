"""`retrail serve` and `retrail mcp` as processes over a real index, and what they publish."""

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from consumers.indexing.collection import Row
from consumers.indexing.milvus import Milvus
from deploy.environment import variables
from retrail_runtime import kafka
from retrail_runtime.milvus import Build
from schemas.events import parse
from schemas.settings import Settings
from schemas.topics import Topics
from tests.tiny_model import write_tiny_model
from trainer.model.encoder import Encoder
from trainer.registry.registry import Registry

ROOT = Path(__file__).parents[2]


@contextmanager
def live_index(settings: Settings, texts: Mapping[str, str], folder: Path) -> Iterator[None]:
    """Version 1 of an index, by a tiny model that is written to ``folder``."""
    encoder = Encoder.load(write_tiny_model(folder / "tiny"), max_tokens=64)
    model = Registry.of(settings).publish(settings.retriever, 1, encoder.save)
    build = Build(f"{settings.retriever}_v1", 1, secrets.token_hex(4), model.location, model.digest)
    with closing(Milvus(settings)) as milvus:
        milvus.create(build, encoder.dimension)
        vectors = encoder.encode_documents(list(texts.values()))
        rows = zip(texts.items(), vectors, strict=True)
        milvus.upsert(build, [Row(name, "", text, "h", vector) for (name, text), vector in rows])
        milvus.make_searchable(build)
        milvus.swap(build)
        yield
        milvus.drop(build)


def environment(settings: Settings, **more: str) -> dict[str, str]:
    path = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    # On a busy machine the first model may take longer than the default.
    path["RETRAIL_SERVE_DEADLINE_SECONDS"] = "120"
    return os.environ | variables(settings) | path | more


@contextmanager
def running(
    settings: Settings,
    *arguments: str,
    command: Sequence[str] = (sys.executable, "-m", "retrail_cli"),
    **more: str,
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*command, *arguments],
        env=environment(settings, **more),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def url_of(process: subprocess.Popen[str]) -> str:
    """Where a server logs that it listens."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"on (http://\S+)", line):
            return found.group(1)
    raise AssertionError(f"no address: {''.join(lines)}")


def events(settings: Settings) -> list[Any]:
    """What is on trajectory-events, by trajectory, in the order of the log."""
    topic = Topics.of(settings).trajectory_events
    found = [parse(r.value or b"").event for r in kafka.read_to_end(settings, topic)]
    return sorted(found, key=lambda event: event.trajectory_id)
