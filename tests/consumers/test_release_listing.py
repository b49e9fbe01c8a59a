"""What a release came of, of plain values."""

from datetime import UTC, datetime

from consumers.release_listing import listed
from consumers.releases import Releases
from schemas.releases import Decision, Live, Model, Release
from schemas.runs import (
    Intensity,
    Range,
    RunManifest,
    TrainingConfig,
    TrainingFile,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def release(version: int, parent: int | None, decision: Decision) -> Release:
    return Release(
        version=version,
        retriever="r",
        parent=parent,
        run_id=f"{version:032x}" if parent else None,
        model=Model(location=f"r/v{version}", digest="0" * 64),
        created_at=NOW,
        queries=10,
        difference=0.02,
        interval=(-0.01, 0.05),
        margin=0.02,
        decision=decision,
        reason="why",
    )


def manifest(version: int, parent: int) -> RunManifest:
    return RunManifest(
        run_id=f"{version:032x}",
        retriever="r",
        parent=parent,
        created_at=NOW,
        ranges=(Range(topic="labelled-pairs", partition=1, start=10 * version, end=99),),
        pair_ids=("1" * 32, "2" * 32),
        replayed=("3" * 32,),
        left_out={"held out": 4},
        intensity=Intensity(overall=None, by_agent_model={}),
        config=TrainingConfig(
            epochs=1,
            batch=1,
            negatives=0,
            learning_rate=1e-5,
            temperature=0.05,
            max_tokens=8,
            seed=0,
        ),
        training_file=TrainingFile(location="t", digest="0" * 64, examples=3),
    )


def known(live: Live | None, *made: Release) -> Releases:
    return Releases({one.version: one for one in made}, {}, live)


def test_every_release_has_a_state_and_a_lineage() -> None:
    live = Live(version=3, previous=2, why="", changed_at=NOW, quarantined=(f"{4:032x}",))
    found = listed(
        known(
            live,
            release(1, None, "first"),
            release(2, 1, "ship"),
            release(3, 2, "ship"),
            release(4, 3, "ship"),
            release(5, 3, "hold"),
            release(6, 2, "pending"),
            release(7, 3, "pending"),
        ),
        {f"{2:032x}": manifest(2, 1)},
    )

    assert [(one.release.version, one.state, one.lineage) for one in found] == [
        (1, "lineage", (1,)),
        (2, "lineage", (2, 1)),
        (3, "live", (3, 2, 1)),
        (4, "quarantined", (4, 3, 2, 1)),
        (5, "aside", (5, 3, 2, 1)),
        (6, "aside", (6, 2, 1)),
        (7, "waiting", (7, 3, 2, 1)),
    ]
    assert [bool(one.ranges) for one in found] == [False, True] + 5 * [False]


def test_without_a_live_release_nothing_waits() -> None:
    [one] = listed(known(None, release(2, 1, "pending")), {})
    assert one.state == "aside"


def test_as_plain_values_a_release_goes_down_to_offsets() -> None:
    found = listed(
        known(None, release(1, None, "first"), release(2, 1, "ship")),
        {f"{2:032x}": manifest(2, 1)},
    )
    first, second = (one.to_json() for one in found)

    assert first["run"] is None
    assert "parent" not in first
    assert second["lineage"] == [2, 1]
    assert (second["difference"], second["interval"]) == (0.02, [-0.01, 0.05])
    run = second["run"]
    assert (run["pairs"], run["replayed"], run["left_out"]) == (2, 1, {"held out": 4})
    assert run["ranges"] == [{"topic": "labelled-pairs", "partition": 1, "start": 20, "end": 99}]
    assert "pair_ids" not in run
