"""The leader: what its coordinator works on, and candidates without progress."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from consumers.indexing import releases as module
from consumers.indexing.milvus import Milvus
from consumers.indexing.plan import Assignment
from consumers.indexing.releases import Candidates
from consumers.indexing.worker import IndexWorker
from retrail_runtime.milvus import Build
from schemas.releases import CandidateDecision, Live
from schemas.settings import Settings
from tests.trained import NOW, a_release
from trainer.data.releases import Releases

LIVE = Live(version=1, why="first", changed_at=NOW)
KNOWN = Releases(
    by_version={1: a_release(1, None, "first"), 2: a_release(2, 1, "ship", candidate=True)},
    offsets={1: 0, 2: 2},
    live=LIVE,
    live_offset=1,
    next_offset=3,
)


class Watched(IndexWorker):
    """Keeps every assignment that its coordinator could see."""

    seen: list[Assignment | None]

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_assignment":
            self.__dict__.setdefault("seen", []).append(value)
        super().__setattr__(name, value)


def test_the_coordinator_never_sees_another_assignment_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives up what it does at any other one, for instance a candidate's comparison."""
    builds = (
        Build("r_v1", 1, "00000001", "m", "d", served=True),
        Build("r_v2", 2, "00000002", "m", "e"),
    )
    milvus = SimpleNamespace(aliased=lambda: "r_v1", builds=lambda: builds)
    settings = Settings(data_dir=tmp_path, retriever="r")
    worker = Watched(settings, cast(Milvus, milvus), threading.Event())
    monkeypatch.setattr(worker, "_follow", lambda *_: None)
    for _ in range(3):
        worker._look(KNOWN, 1, "topic", leads=True)
    worker._look(KNOWN, 1, "topic", leads=False)
    worker._claim.lock.release()

    candidate = Assignment(builds[1], "topic", candidate=True)
    assert worker.seen == [None, candidate, candidate, candidate, None]


def test_time_in_which_another_worker_led_does_not_abandon_a_candidate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, written = [0.0], list[CandidateDecision]()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(module, "write_decision", lambda _, decision: written.append(decision))
    candidates = Candidates(Settings(gate_candidate_seconds=10), moved_at=lambda: 0.0)
    candidates.step(KNOWN)
    now[0] = 5
    candidates.stand_by()
    now[0] = 50
    candidates.step(KNOWN)
    assert written == []
    now[0] = 59
    candidates.step(KNOWN)
    assert written == []
    now[0] = 60
    candidates.step(KNOWN)
    assert [(one.version, one.decision) for one in written] == [(2, "abandoned")]
