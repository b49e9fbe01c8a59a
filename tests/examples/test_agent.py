"""The example agent on the whole stack, driven as a person would: by commands."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.environment import variables
from deploy.stack import ROLES, LocalStack
from retrail_cli import main
from schemas.errors import NoIndexError
from schemas.settings import Settings
from serving.retriever import Retriever
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]

DOCUMENTS = [
    ("gzip", "gzip", "Open a gzip file with gzip.open, in binary or text mode."),
    ("zipfile", "zipfile", "Read and write archives of the ZIP format."),
    ("json", "json", "Encode and decode JavaScript object notation."),
    ("csv", "csv", "Read rows of comma separated values."),
    ("heapq", "heapq", "A priority queue on top of a list."),
]


Retrail = Callable[..., str]


@pytest.fixture
def stack(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A running stack, and an environment that reaches it, as in another shell."""
    with LocalStack(settings, ROLES) as stack:
        for name, value in variables(stack.settings).items():
            monkeypatch.setenv(name, value)
        yield stack.settings


@pytest.fixture
def retrail(capsys: pytest.CaptureFixture[str]) -> Retrail:
    """Runs a command that succeeds, and gives its output."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        assert status == 0, written.err
        return written.out

    return run


@pytest.mark.usefixtures("stack")
def test_an_agents_work_becomes_pairs(
    stack: Settings, retrail: Retrail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    corpus = tmp_path / "corpus.jsonl"
    lines = [json.dumps({"doc_id": i, "title": t, "text": x}) for i, t, x in DOCUMENTS]
    corpus.write_text("\n".join(lines))
    retrail("documents", "load", corpus)
    eventually(lambda: searchable(stack), timeout=120, what="index of the first release")

    answer = json.loads(retrail("search", "open gzip", "-k", 5, "--json"))
    assert answer["retriever_version"] == 1
    assert {hit["doc_id"] for hit in answer["hits"]} == {doc_id for doc_id, _, _ in DOCUMENTS}
    assert "2 hits from release 1." in retrail("search", "open gzip", "-k", 2)
    assert "Release 1 is live" in retrail("releases")

    agent = subprocess.run(
        [sys.executable, ROOT / "examples" / "agent.py", corpus, "open a gzip file"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert agent.stdout.strip() == DOCUMENTS[0][2], agent.stderr

    pairs = eventually(
        lambda: [json.loads(line) for line in retrail("pairs", "--jsonl").splitlines()],
        timeout=60,
        what="pairs",
    )
    by_document = {pair["positive"]: pair for pair in pairs}
    assert by_document["gzip"]["verdict"] == "relevant"
    assert by_document["gzip"]["agent"] == {"name": "example", "model": "none"}
    assert {p["verdict"] for d, p in by_document.items() if d != "gzip"} <= {"irrelevant"}
    assert "elease" in retrail("train")
    retrail("doctor")


def searchable(stack: Settings) -> bool:
    with Retriever(stack) as retriever:
        try:
            return len(retriever.search("anything", 5).hits) == len(DOCUMENTS)
        except NoIndexError:
            return False
