"""Finished runs of a long benchmark: one JSON line each, so that a second call goes on behind."""

import json
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
    """What a file holds; a last line that was cut off is left out."""
    if not path.exists():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines()]


def append(path: Path, run: dict[str, Any]) -> None:
    """Add a run, in the place of a line that was cut off."""
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(run).encode() + b"\n")
