"""Options and output of `retrail train`, `retrail demo` and `retrail search`."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import consumers.training.worker
import simulation.demo.command
from serving.retriever import Hit, SearchResult


def test_train_prints_the_decision_of_the_gate(
    retrail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = SimpleNamespace(
        version=4, decision="hold", reason="nDCG@10 fell by .01", candidate=False
    )

    def train_now(settings: Any, *, on_step: Any) -> Any:
        for step in (1, 2):
            on_step(SimpleNamespace(step=step, steps=2, loss=0.5, pairs_per_second=9.0))
        return release

    monkeypatch.setattr(consumers.training.worker, "train_now", train_now)
    done = retrail("train")
    assert (done.status, done.out) == (0, "Release 4: hold (nDCG@10 fell by .01).\n")
    release.candidate, release.decision = True, "ship"
    assert retrail("train").out.startswith("Release 4: candidate (nDCG@10 fell by .01).\n")


def test_train_says_why_there_is_no_release(retrail: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    why = "of 14 new pairs 0 can train"
    monkeypatch.setattr(consumers.training.worker, "train_now", lambda settings, on_step: why)
    done = retrail("train")
    assert (done.status, done.out) == (0, f"No new release: {why}.\n")


def test_the_demo_gets_its_options(retrail: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(simulation.demo.command, "run", lambda **options: given.append(options))
    options = [
        "--report",
        "r.json",
        "--chart",
        "c.png",
        "--corpus",
        "d",
        "--turns",
        "3",
        "--seed",
        "7",
        "--agents",
        "5",
    ]
    assert retrail("demo").status == retrail("demo", *options).status == 0
    assert given == [
        {"report": None, "chart": None, "corpus": None, "turns": 2, "seed": 0, "agents": None},
        {
            "report": Path("r.json"),
            "chart": Path("c.png"),
            "corpus": Path("d"),
            "turns": 3,
            "seed": 7,
            "agents": 5,
        },
    ]


def test_search_prints_hits_as_a_table_and_as_json(
    retrail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hit = Hit("d2", 1, 0.75, "Bridges", "Built\nin 1965.")

    class Retriever:
        def __init__(self, settings: Any) -> None: ...

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None: ...

        def search(self, query: str, k: int) -> Any:
            assert (query, k) == ("when was it built", 3)
            return SearchResult([hit], 2, note)

    note = "12% of all documents indexed"
    monkeypatch.setattr("serving.retriever.Retriever", Retriever)
    table = retrail("search", "when was it built", "-k", 3).out
    assert "Bridges Built in 1965." in table
    assert "1 hit from release 2. 12% of all documents indexed" in table
    note = ""
    assert json.loads(retrail("search", "when was it built", "-k", 3, "--json").out) == {
        "retriever_version": 2,
        "hits": [
            {
                "doc_id": "d2",
                "rank": 1,
                "score": 0.75,
                "title": "Bridges",
                "text": "Built\nin 1965.",
                "url": None,
            }
        ],
    }
    assert retrail("search", "x", "-k", 0).status == 2


def test_search_without_milvus_names_the_remedy(
    retrail: Any, closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAIL_MILVUS_URI", f"http://{closed_port}")
    done = retrail("search", "x")
    assert done.status == 69
    assert "Milvus does not answer" in done.err
    assert "Traceback" not in done.err
