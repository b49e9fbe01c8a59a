"""The audit log."""

import getpass
import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from retrail_runtime import audit
from schemas.settings import Settings


def test_lines_say_who_did_what_and_when(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", kafka_sasl_username="operator")
    before = datetime.now(UTC)
    audit.write(settings, "promote", version=3)
    audit.write(settings, "dlq replay", topic="t", records=2, places=["0:1", "2:7"])
    file = tmp_path / "data" / "audit.jsonl"
    first, second = map(json.loads, file.read_text().splitlines())
    assert abs((datetime.fromisoformat(first["at"]) - before).total_seconds()) < 60
    assert first["who"]["user"] == getpass.getuser()
    assert first["who"]["kafka"] == "operator"
    assert (first["action"], first["version"]) == ("promote", 3)
    assert (second["action"], second["places"]) == ("dlq replay", ["0:1", "2:7"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    file.rename(tmp_path / "rotated")
    audit.write(settings, "rollback", version=2)
    assert json.loads(file.read_text())["action"] == "rollback"


def test_a_user_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", unknown)
    monkeypatch.setattr(audit.os, "getuid", lambda: 4711)
    audit.write(Settings(data_dir=tmp_path), "rollback", version=2)
    assert json.loads((tmp_path / "audit.jsonl").read_text())["who"]["user"] == "4711"


def test_a_line_that_cannot_be_written_is_logged(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with structlog.testing.capture_logs() as logged:
        audit.write(Settings(data_dir=tmp_path / "file"), "promote", version=3)
    [entry] = logged
    assert entry["log_level"] == "error"
    assert entry["line"]["action"] == "promote"
    assert entry["line"]["version"] == 3
