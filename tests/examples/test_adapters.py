"""The examples of the adapters against a real `retrail serve`, with events on real Kafka."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from retrail.http import SearchClient
from schemas.events import Answer, Browse, End, Reasoning, Search
from schemas.settings import Settings
from schemas.topics import Topics
from tests.serving.processes import events, live_index, running, url_of
from tests.waiting import eventually

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXTS = {"gzip": "Open a gzip file.", "zip": "Read archives.", "json#0": "Decode notation."}


@pytest.fixture
def served(settings: Settings, topics: Topics, tmp_path: Path) -> Iterator[str]:
    """URL of `retrail serve` over TEXTS."""
    with (
        live_index(settings, TEXTS, tmp_path),
        running(settings, "serve", "--port", "0") as process,
    ):
        url = url_of(process)
        eventually(lambda: httpx.get(f"{url}/readyz").is_success, 180, "answers", interval=0.5)
        yield url


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["langchain_agent", "openai_tools"])
def test_its_work_is_published(name: str, served: str, settings: Settings) -> None:
    with SearchClient(served, agent="example", model="none", timeout=60) as client:
        answer = example(name).work("open a gzip file", client)
    published = eventually(
        lambda: len(found := events(settings)) > 5 and found, what="events on Kafka"
    )
    assert len({event.trajectory_id for event in published}) == 1
    search, before, browse, after, answered, end = published
    assert isinstance(search, Search)
    assert (search.query, search.retriever_version) == ("open a gzip file", 1)
    assert (search.agent.name, search.agent.model) == ("example", "none")
    assert {hit.doc_id for hit in search.hits} == set(TEXTS)
    assert isinstance(before, Reasoning)
    assert (before.text, before.about) == ("The first hit looks right.", None)
    assert isinstance(browse, Browse)
    assert browse.doc_id == search.hits[0].doc_id
    assert answer == TEXTS[browse.doc_id]
    assert isinstance(after, Reasoning)
    assert after.about_previous
    assert isinstance(answered, Answer)
    assert answered.text == answer
    assert isinstance(end, End)


def test_examples_need_the_client_alone() -> None:
    ours = {path.parent.name for path in EXAMPLES.parent.glob("*/__init__.py")} - {"retrail"}
    assert {"schemas", "serving"} <= ours
    for path in EXAMPLES.glob("*.py"):
        lines = path.read_text().splitlines()
        imported = {line.split()[1].partition(".")[0] for line in lines if _imports(line)}
        assert imported & ours == set(), path
        assert "retrail" in imported


def _imports(line: str) -> bool:
    return line.startswith(("import ", "from "))
