"""Files of finished runs."""

from pathlib import Path

from benchmarks import kept


def test_runs_are_kept_and_a_line_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    assert kept.read(path) == []
    kept.append(path, {"seed": 0})
    kept.append(path, {"seed": 1})
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    assert kept.read(path) == [{"seed": 0}]
    kept.append(path, {"seed": 1})
    assert path.read_bytes() == whole
