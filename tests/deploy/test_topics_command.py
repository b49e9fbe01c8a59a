"""``retrail topics create`` and ``list``."""

import pytest
from typer.testing import CliRunner

from retrail_cli.topics import app
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


def test_list_tells_differences(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.invoke(app, ["create"])
    monkeypatch.setenv("RETRAIL_KAFKA_RETENTION_HOURS", "10")
    shown = runner.invoke(app, ["list"]).stdout
    assert shown.count("retention.ms is 2592000000, should be 36000000") == 4
