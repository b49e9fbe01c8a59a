import json
from pathlib import Path

import pytest

from schemas.errors import InputError
from simulation.demo import chart, report
from simulation.demo.report import CorpusFigures, Gate, Report, Seconds, Turn


def turn(number: int, losses: tuple[float, ...] = (1.2, 0.9)) -> Turn:
    return Turn(
        turn=number,
        model_version=number + 1,
        ndcg_at_10=0.48 + 0.02 * number,
        recall_at_10=0.67 + 0.02 * number,
        success_rate=0.5 + 0.01 * number,
        mean_steps=5.0,
        trajectories=100 if number else 0,
        pairs=400 if number else 0,
        losses=losses if number else (),
        gate=Gate("ship", "better", 80, 0.4, 0.5) if number else None,
        seconds=Seconds(20.04, 3.06, 60.0, 15.0, 9.0) if number else Seconds(refresh=20.0),
    )


def run_of(turns: int, **changes: tuple[float, ...]) -> Report:
    return Report(
        corpus=CorpusFigures("a corpus", 1769, 1700, 857),
        kafka="apache-4.3.1",
        seed=0,
        agents=100,
        turns=tuple(turn(number, **changes) for number in range(turns + 1)),
        seconds=301.26,
    )


def test_json_has_the_agreed_shape(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    report.write(run_of(2), path)
    found = json.loads(path.read_text())
    assert {"name": "a corpus", "documents": 1769, "needs": 1700}.items() <= found["corpus"].items()
    assert found["kafka"] == "apache-4.3.1"
    assert [turn["turn"] for turn in found["turns"]] == [0, 1, 2]
    for one in found["turns"]:
        assert {
            "model_version",
            "ndcg_at_10",
            "recall_at_10",
            "success_rate",
            "mean_steps",
            "pairs",
        } <= one.keys()
        assert {"agents", "mining", "training", "refresh"} <= one["seconds"].keys()
    assert found["turns"][1]["seconds"]["agents"] == 20.0


def test_a_file_that_cannot_be_written_is_named_and_the_old_one_stays(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        report.require_writable([tmp_path / "nowhere" / "report.json"])
    with pytest.raises(InputError, match="it is a folder"):
        report.require_writable([tmp_path])
    with pytest.raises(InputError, match="cannot be written"):
        report.write(run_of(1), tmp_path / "nowhere" / "report.json")
    report.require_writable([tmp_path / "report.json"])
    assert list(tmp_path.iterdir()) == []


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    broken = run_of(1)
    object.__setattr__(broken, "seconds", float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        report.write(broken, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("turns", [1, 2, 7, 30])
def test_the_chart_is_a_png_of_a_fixed_size(tmp_path: Path, turns: int) -> None:
    path = tmp_path / "chart.png"
    chart.draw(run_of(turns), path)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n")
    size = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    assert size == (chart.WIDTH * chart.DPI, chart.HEIGHT * chart.DPI)


def test_the_same_report_gives_the_same_chart() -> None:
    assert chart.render(run_of(2)) == chart.render(run_of(2))


def test_the_chart_draws_a_turn_without_steps() -> None:
    assert chart.render(run_of(1, losses=()))
