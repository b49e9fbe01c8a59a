"""promtool checks the rules: every alert is quiet, fires and clears when it should."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers.prometheus import promtool

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"
ALERTS = re.findall(r"- alert: (\w+)", (RULES / "alerts.yml").read_text())


@dataclass(frozen=True)
class Story:
    """Series over time, and when the alert is quiet, fires, and is quiet again.

    Series are given in promtool's notation (``value+step x times``), one sample per ``interval``.
    """

    series: dict[str, str]
    quiet: str
    fires: str
    clears: str
    interval: str = "1m"


def counter(name: str, **labels: str) -> str:
    """A series of the scrape job."""
    pairs = ",".join(f'{key}="{value}"' for key, value in ({"job": "retrail"} | labels).items())
    return f"{name}{{{pairs}}}"


def searches(**labels: str) -> str:
    return counter("retrail_serve_request_duration_seconds_bucket", operation="search", **labels)


ROLES = ("judge", "mine", "train", "index")
LAG = "retrail_consumer_lag_records"
AGE = "retrail_consumer_lag_seconds"
EVENTS = "retrail_judge_events_total"
DAY = 288  # samples of 5 minutes

STORIES = {
    "RetrailWorkerDown": Story(
        {counter("up", role="mine", instance="a"): "1x9 0x19 1x60"}, "9m", "16m", "40m"
    ),
    "RetrailRoleMissing": Story(
        {counter("up", role=role): "1x80" for role in ROLES if role != "index"}
        | {counter("up", role="index"): "1x9 0x29 1x40"},
        *("9m", "25m", "45m"),
    ),
    "RetrailWorkerRestarting": Story(
        {counter("process_start_time_seconds", role="judge"): "0x9 1x4 2x4 3x4 3x100"},
        *("12m", "25m", "90m"),
    ),
    "RetrailDependencyDown": Story(
        {counter("retrail_dependency_up", role="index", dependency="milvus"): "1x9 0x19 1x30"},
        *("12m", "20m", "45m"),
    ),
    "RetrailDiskFull": Story(
        {counter("retrail_data_dir_disk_used_ratio", role="train"): "0.5x9 0.95x29 0.5x10"},
        *("15m", "30m", "48m"),
    ),
    "RetrailWorkerStuck": Story(
        {counter(AGE, role="mine", topic="judged-events"): "0x19 0+60x40 0x60"},
        *("19m", "45m", "80m"),
    ),
    "RetrailWorkerStuck (run)": Story(
        {
            counter("retrail_worker_alive", role="train"): "1x19 0x20 1x40",
            counter("retrail_dependency_up", dependency="judge_server"): "0x80",
        },
        *("19m", "30m", "50m"),
    ),
    "RetrailLagIncreasing": Story(
        {counter(LAG, role="judge", topic="t"): "0x29 0+500x120 0x120"}, "40m", "120m", "210m"
    ),
    "RetrailOpenTransaction": Story(
        {counter("retrail_consumer_open_transaction_seconds", topic="t"): "0x9 0+60x20 0x20"},
        *("11m", "20m", "38m"),
    ),
    "RetrailDeadLetters": Story(
        {
            counter(EVENTS, type="search", result="accepted"): "0+100x300",
            counter("retrail_judge_dead_letters_total", reason="malformed_json"): (
                "0x29 0+2x20 40x250"
            ),
        },
        *("29m", "50m", "240m"),
    ),
    "RetrailDocumentsDeadLettered": Story(
        {counter("retrail_index_dead_letters_total"): "0x29 1x200"}, "29m", "40m", "120m"
    ),
    "RetrailJudgeServerDown": Story(
        {
            counter("retrail_dependency_up", dependency="judge_server"): "1x9 0x19 1x30",
        },
        *("9m", "20m", "35m"),
    ),
    "RetrailRecordsRefused": Story(
        {counter("retrail_mine_events_total", result="refused", instance="a"): "0x29 1x200"},
        *("29m", "40m", "140m"),
    ),
    "RetrailRecordsMissing": Story(
        {counter("retrail_offset_discontinuities_total", topic="t", kind="gap"): "0x29 3x200"},
        *("29m", "40m", "140m"),
    ),
    "RetrailNoPairs": Story(
        {
            counter(EVENTS, type="browse", result="accepted"): "0+1x1200",
            counter("retrail_mine_pairs_total", verdict="relevant"): "0+1x200 200x500 200+1x500",
        },
        *("400m", "620m", "760m"),
    ),
    "RetrailTrajectoriesWithoutBrowses": Story(
        {
            counter(EVENTS, type="search", result="accepted"): "0+1x1200",
            counter(EVENTS, type="browse", result="accepted"): "0+1x200 200x500 200+1x500",
        },
        *("400m", "620m", "760m"),
    ),
    "RetrailTracesNotUnderstood": Story(
        {
            counter("retrail_otlp_not_mapped_total", reason="no_content"): "0+3x1200",
            counter("retrail_otlp_not_mapped_total", reason="served"): "0+30x1200",
            counter("retrail_otlp_traces_total", reason="root"): "0+1x1200",
            counter("retrail_otlp_trajectories_total"): "0+1x200 200x500 200+1x500",
        },
        *("400m", "620m", "760m"),
    ),
    "RetrailTrainingOverdue": Story(
        {counter("retrail_train_pairs_pending_age_seconds"): "0+600x600 0x60"},
        *("40h", "52h", "101h"),
        "10m",
    ),
    "RetrailTrainingFailing": Story(
        {counter("retrail_train_runs_total", result="failed"): "0x29 1x30 2x400"},
        *("4h", "12h", "48h"),
        "10m",
    ),
    "RetrailLossNotFinite": Story(
        {
            counter("retrail_train_loss", instance="a"): "2x9 " + "NaN " * 10 + "1x9",
            counter("retrail_train_active", instance="a"): "1x40",
        },
        *("9m", "15m", "25m"),
    ),
    "RetrailGateRejectsInARow": Story(
        {
            counter("retrail_gate_decisions_total", decision="hold"): "0x9 1x9 2x9 4x400",
            counter("retrail_gate_decisions_total", decision="ship"): "0x100 1x300",
        },
        *("15h", "40h", "120h"),
        "1h",
    ),
    "RetrailNewestPairTooOld": Story(
        {
            counter("retrail_live_newest_pair_timestamp_seconds"): "60x200 720000x50",
            counter("retrail_mine_pairs_total", verdict="relevant"): "0+10x300",
        },
        *("6d", "7d6h", "8d12h"),
        "1h",
    ),
    "RetrailIndexStale": Story(
        {
            counter("retrail_live_version", role="index"): "1x9 2x200",
            counter("retrail_index_live_version", role="index"): "1x99 2x100",
        },
        *("60m", "80m", "110m"),
    ),
    "RetrailCandidateAbandoned": Story(
        {
            counter(
                "retrail_index_candidate_decisions_total", role="index", decision="abandoned"
            ): "0x29 1x600",
            counter(
                "retrail_index_candidate_decisions_total", role="index", decision="reject"
            ): "0x9 5x620",
        },
        *("25m", "60m", "8h"),
    ),
    "RetrailSearchErrors": Story(
        {
            counter("retrail_serve_requests_total", status="200"): "0+100x100",
            counter("retrail_serve_requests_total", status="503"): "0x29 0+10x20 200x50",
        },
        *("29m", "45m", "70m"),
    ),
    "RetrailSearchSlow": Story(
        {
            searches(le="1.0"): "0+100x20 2000x30 2000+100x50",
            searches(le="2.5"): "0+100x100",
            searches(le="+Inf"): "0+100x100",
            counter(
                "retrail_serve_request_duration_seconds_count", operation="search"
            ): "0+100x100",
        },
        *("20m", "45m", "75m"),
    ),
    "RetrailEventsNotPublished": Story(
        {counter("retrail_serve_published_events_total", status="failed"): "0x19 0+5x10 50x80"},
        *("19m", "28m", "80m"),
    ),
    "RetrailSignalDrift": Story(
        {
            counter(EVENTS, type="search", result="accepted"): f"0+10x{11 * DAY}",
            counter(EVENTS, type="browse", result="accepted"): (
                f"0+10x{8 * DAY} {80 * DAY}+2x{DAY} {82 * DAY}+10x{2 * DAY}"
            ),
        },
        *("8d", "9d", "10d6h"),
        "5m",
    ),
}


def only(name: str) -> dict[str, Any]:
    """The file of alerts with one alert alone."""
    groups = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"] if rule["alert"] == name]
    return {"groups": [{"name": "test", "rules": rules}]}


def rule_test(name: str, story: Story) -> dict[str, Any]:
    """A test of one alert in promtool's format."""
    firing = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)'
    times = {story.quiet: 0, story.fires: 1, story.clears: 0}
    return {
        "interval": story.interval,
        "name": name,
        "input_series": [
            {"series": series, "values": values} for series, values in story.series.items()
        ],
        "promql_expr_test": [
            {
                "expr": firing,
                "eval_time": time,
                "exp_samples": [{"labels": "{}", "value": value}],
            }
            for time, value in times.items()
        ],
    }


def test_the_rules_are_valid() -> None:
    files = [str(path) for path in sorted(RULES.glob("*.yml"))]
    done = subprocess.run([promtool(), "check", "rules", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def documented(first: str) -> list[str]:
    """The blocks of YAML in docs/monitoring.md that begin with a comment."""
    text = (ROOT / "docs" / "monitoring.md").read_text()
    return re.findall(rf"```yaml\n(# {first}.*?)```", text, re.S)


def test_the_documented_configuration_is_valid(tmp_path: Path) -> None:
    blocks = documented("prometheus.yml")
    assert len(blocks) == 2
    file = tmp_path / "prometheus.yml"
    file.write_text("".join(blocks))
    assert len(yaml.safe_load(file.read_text())["scrape_configs"]) == 2
    command = [promtool(), "check", "config", "--syntax-only", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_documented_probes_use_the_pages() -> None:
    [probes] = documented("in the container")
    paths = {kind: probe["httpGet"]["path"] for kind, probe in yaml.safe_load(probes).items()}
    assert paths == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }


@pytest.mark.parametrize("case", STORIES)
def test_an_alert_is_quiet_fires_and_clears(case: str, tmp_path: Path) -> None:
    name, story = case.partition(" ")[0], STORIES[case]
    rules = tmp_path / "alerts.yml"
    rules.write_text(json.dumps(only(name)))  # JSON is YAML; one alert is tested much faster
    content = {
        "rule_files": [str(RULES / "rules.yml"), str(rules)],
        "evaluation_interval": story.interval,
        "tests": [rule_test(name, story)],
    }
    file = tmp_path / "test.yml"
    file.write_text(json.dumps(content))
    done = subprocess.run([promtool(), "test", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_runbook_and_a_story() -> None:
    assert {case.partition(" ")[0] for case in STORIES} == set(ALERTS)
    assert {path.stem for path in RUNBOOKS.glob("Retrail*.md")} == set(ALERTS)
    named = re.findall(r"runbook_url: (\S+)", (RULES / "alerts.yml").read_text())
    assert named == [f"docs/runbooks/{name}.md" for name in ALERTS]


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_what_an_operator_reads(name: str) -> None:
    [rule] = only(name)["groups"][0]["rules"]
    assert name.startswith("Retrail")
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert {*rule["annotations"]} == {"summary", "description", "runbook_url"}
    assert "keep_firing_for" in rule
    runbook = (RUNBOOKS / f"{name}.md").read_text()
    meaning, look, remedy = re.split(r"^## (?:First look|Remedy)$", runbook, flags=re.M)
    assert all(part.strip() for part in (meaning.partition("\n")[2], look, remedy))


def test_rules_name_metrics_that_exist() -> None:
    documented = set(
        re.findall(r"^\| `(retrail_\w+)`", (ROOT / "docs/metrics.md").read_text(), re.M)
    )
    text = "\n".join(path.read_text() for path in RULES.glob("*.yml"))
    used = set(re.findall(r"\b(retrail_\w+)\{", text))
    assert used
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in used} <= documented
