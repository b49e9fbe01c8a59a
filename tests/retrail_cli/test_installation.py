"""``retrail topics`` and ``retrail settings``."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from retrail_cli.installation import topics as app
from schemas.settings import Settings
from schemas.topics import specs


@pytest.fixture
def runner(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("RETRAIL_KAFKA_BOOTSTRAP", settings.kafka_bootstrap)
    monkeypatch.setenv("RETRAIL_TOPIC_PREFIX", settings.topic_prefix)
    monkeypatch.setenv("RETRAIL_PARTITIONS", "3")
    monkeypatch.setenv("COLUMNS", "200")
    return CliRunner()


def test_create_then_list(runner: CliRunner, settings: Settings) -> None:
    before = runner.invoke(app, ["list"]).stdout
    created = runner.invoke(app, ["create"])
    again = runner.invoke(app, ["create"]).stdout
    after = runner.invoke(app, ["list"]).stdout

    assert created.exit_code == 0
    for spec in specs(settings):
        for shown in (before, created.stdout, again, after):
            assert spec.name in shown
    assert before.count("absent: retrail topics create") == len(specs(settings))
    assert created.stdout.count("created") == len(specs(settings))
    assert again.count("ok ") == len(specs(settings))
    assert after.count("ok ") == len(specs(settings))
    assert "30 days" in after
    assert "latest of each key" in after


def test_list_shows_differences(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.invoke(app, ["create"])
    monkeypatch.setenv("RETRAIL_KAFKA_RETENTION_HOURS", "10")
    shown = runner.invoke(app, ["list"]).stdout
    assert shown.count("retention.ms is 2592000000, should be 36000000") == 6


def test_every_setting_is_printed_in_its_group(
    retrail: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RETRAIL_PARTITIONS", "7")
    monkeypatch.setenv("RETRAIL_KAFKA_SASL_PASSWORD", "a secret")
    file = tmp_path / "retrail.env"
    file.write_text("RETRAIL_PARTITIONS=8\nRETRAIL_REPLICATION=3\n")
    monkeypatch.setenv("RETRAIL_ENV_FILE", str(file))
    done = retrail("settings", "--json")
    assert done.status == 0
    rows = {row["name"]: row for row in json.loads(done.out)}
    assert set(rows) == {f"RETRAIL_{name.upper()}" for name in Settings.model_fields}
    assert rows["RETRAIL_PARTITIONS"] == {
        "name": "RETRAIL_PARTITIONS",
        "value": 7,
        "default": 4,
        "set": True,
        "description": Settings.model_fields["partitions"].description,
        "group": "Kafka: brokers and topics",
    }
    assert rows["RETRAIL_REPLICATION"]["value"] == 3
    assert rows["RETRAIL_MINE_GAP_SECONDS"]["set"] is False
    assert rows["RETRAIL_MINE_GAP_SECONDS"]["group"] == "retrail worker mine"

    plain = retrail("settings").out
    assert "a secret" not in done.out + plain
    assert rows["RETRAIL_KAFKA_SASL_PASSWORD"]["value"] == "**********"
    assert "* RETRAIL_PARTITIONS = 7\n" in plain
    assert "(default: 4)" in plain
    assert "  RETRAIL_MINE_GAP_SECONDS = 30.0\n" in plain
    assert "Kafka: brokers and topics\n" in plain


def test_a_bad_setting_is_named(retrail: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRAIL_PARTITIONS", "none")
    done = retrail("settings")
    assert done.status == 1
    assert "RETRAIL_PARTITIONS" in done.err


def test_every_setting_has_a_description() -> None:
    without = [name for name, field in Settings.model_fields.items() if not field.description]
    assert without == []


def test_settings_need_no_heavy_library() -> None:
    script = (
        "import sys\n"
        "for name in ('torch', 'pymilvus', 'faust', 'transformers', 'confluent_kafka'):\n"
        "    sys.modules[name] = None\n"
        "from retrail_cli import main\n"
        "sys.exit(main(['settings']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "RETRAIL_KAFKA_BOOTSTRAP" in done.stdout
