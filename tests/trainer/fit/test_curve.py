"""The training curve that lies with a model."""

import json
from pathlib import Path

from tests.trainer.fit.test_finetune import config
from tests.trainer.labelled import example
from trainer.fit import curve, finetune
from trainer.model.encoder import Encoder


def test_a_repeated_training_gives_the_same_files(encoder: Encoder, tmp_path: Path) -> None:
    examples = [example(number) for number in range(8)]
    written = []
    for name in ("one", "two"):
        report = finetune.finetune(encoder, examples, config(epochs=2))
        (tmp_path / name).mkdir()
        curve.write(report.steps, tmp_path / name)
        written.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {curve.JSON_LINES, curve.PICTURE}
    assert written[0][curve.PICTURE].startswith(b"\x89PNG")
    rows = [json.loads(line) for line in written[0][curve.JSON_LINES].splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["loss"] for row in rows] == [step.loss for step in report.steps]
