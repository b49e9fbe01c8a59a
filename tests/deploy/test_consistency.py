"""Ports, commands, settings, metrics and topics agree in code, image, chart, rules and docs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.rights import ROLES
from schemas.settings import Settings
from schemas.topics import Topics
from tests.deploy.chart import FIXED, PRESETS, SERVERS, of_kind, pods, preset, role_of, variables
from tests.docs.test_references import METRICS, SETTINGS, check

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
# The first test builds Helm.
pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]


def text_of(*paths: str) -> str:
    return "\n".join(path.read_text() for name in paths for path in sorted(ROOT.glob(name)))


def images() -> dict[str, list[str]]:
    """The command of each image, by its target."""
    stage = r"^FROM \w+ AS (\w+)\n(?:(?!FROM).*\n)*?CMD (\[.*?\])$"
    stages = re.findall(stage, CONTAINERFILE, re.M)
    return {target: json.loads(command) for target, command in stages}


def roles() -> dict[str, dict[str, Any]]:
    """The container of each role, with all roles enabled."""
    return {role: pod["containers"][0] for role, pod in pods(preset("operators"))}


def test_the_port_is_the_same_everywhere() -> None:
    [port] = re.findall(r"RETRAIL_METRICS_PORT=(\d+)", CONTAINERFILE)
    assert re.findall(r"^EXPOSE (\d+)$", CONTAINERFILE, re.M) == [port]
    for role, container in roles().items():
        assert container["ports"] == [{"name": "http", "containerPort": int(port)}], role
        if role in SERVERS:
            assert container["args"][-2:] == ["--port", port]
    for policy in of_kind("NetworkPolicy", preset("operators")):
        assert policy["spec"]["ingress"][0]["ports"] == [{"port": int(port)}]
    for monitor in of_kind("PodMonitor", preset("operators")):
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        assert (endpoint["port"], endpoint["path"]) == ("http", "/metrics")
    compose = yaml.safe_load(text_of("deploy/compose/compose.yaml"))["services"]
    for role in SERVERS:
        assert compose[role]["command"] == roles()[role]["args"]
        assert compose[role]["ports"][0].endswith(f":{port}")
    assert f"are on port {port}" in text_of("docs/deploy.md")


def test_probes_are_those_of_the_documentation() -> None:
    page = text_of("docs/monitoring.md")
    [block] = re.findall(r"```yaml\n# in the container of a pod\n(.*?)```", page, re.S)
    probes = yaml.safe_load(block)
    assert set(probes) == {"startupProbe", "livenessProbe", "readinessProbe"}
    for role, container in roles().items():
        assert {name: container[name] for name in probes} == probes, role


def test_commands_exist_and_images_have_them() -> None:
    found = roles()
    targets = images()
    assert set(targets) == {"streams", "trainer", "serve"}
    for role, container in found.items():
        check(container["args"])
        image = container["image"].removeprefix("retrail-").partition(":")[0]
        assert image in targets
        line = next(row for row in CONTAINERFILE.splitlines() if row.startswith(f"# | {image} "))
        assert re.search(rf"\b{role}\b", line), f"{role} is not in the table of {image}"
    for image, role in (("streams", "mine"), ("trainer", "train"), ("serve", "serve")):
        assert found[role]["args"] == targets[image]
    for preset_name in PRESETS:
        for _, pod in pods(preset(preset_name)):
            check(pod["containers"][0]["args"])
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        [command] = re.findall(r"^ExecStart=\S+/retrail (.*)$", unit.read_text(), re.M)
        check(command.replace("%i", "mine").split())


def test_roles_are_those_of_the_rights_the_alerts_and_the_documentation() -> None:
    workers = {role for role, container in roles().items() if container["args"][0] == "worker"}
    assert workers | set(SERVERS) <= set(ROLES)
    alerts = text_of("deploy/prometheus/*.yml", "deploy/grafana/*.json")
    named = set(re.findall(r'role=\\?"(\w+)\\?"', alerts))
    assert named
    assert named <= set(roles())
    page = text_of("docs/deploy.md")
    for role in roles():
        assert re.search(rf"`{role}`", page), role


def test_settings_exist() -> None:
    [block] = re.findall(r"^FROM base AS server\nENV (.*?)\nEXPOSE", CONTAINERFILE, re.M | re.S)
    assert set(re.findall(r"RETRAIL_\w+", block)) == FIXED
    files = text_of("deploy/helm/retrail/**/*.yaml", "deploy/helm/retrail/**/*.tpl")
    files += text_of(
        "deploy/systemd/*.service",
        "deploy/Containerfile",
        "deploy/compose/*.yaml",
        "deploy/compose/.env.example",
    )
    for name in re.findall(r"RETRAIL_[A-Z_]*[A-Z](?!_?…)", files):
        assert name in SETTINGS, name


@pytest.mark.parametrize("name", PRESETS)
def test_what_a_pod_gets_can_be_loaded(name: str) -> None:
    for role, pod in pods(preset(name)):
        given = {
            key.removeprefix("RETRAIL_").lower(): "x" * 20 if isinstance(value, dict) else value
            for key, value in variables(pod).items()
            if key.startswith("RETRAIL_")
        }
        settings = Settings(**given)
        assert "://" in settings.registry_url, role


def test_metrics_exist() -> None:
    texts = {
        "rules": text_of("deploy/prometheus/*.yml"),
        "dashboards": text_of("deploy/grafana/*.json"),
        "scalers": json.dumps(of_kind("ScaledObject", preset("operators"))),
    }
    for where, text in texts.items():
        found = set(re.findall(r"\bretrail_[a-z0-9_]+", text))
        assert found, where
        for metric in found:
            assert {metric, re.sub("_(bucket|sum|count)$", "", metric)} & METRICS, metric
    jobs = set(re.findall(r'job=\\?"(\w+)\\?"', "".join(texts.values())))
    assert jobs == {"retrail"}
    for monitor in of_kind("PodMonitor", preset("operators")):
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        assert {"targetLabel": "job", "replacement": "retrail"} in endpoint["relabelings"]


def test_topics_exist() -> None:
    topics = Topics.of(Settings())
    for item in of_kind("ScaledObject", preset("operators")):
        for trigger in item["spec"]["triggers"]:
            if trigger["type"] == "kafka":
                assert role_of(item) == "judge"
                assert trigger["metadata"]["topic"] == topics.trajectory_events
    written = [item["spec"]["topicName"] for item in of_kind("KafkaTopic", preset("operators"))]
    security = text_of("docs/security.md")
    for name in written:
        assert f"`{name}`" in security or name == topics.outcomes, name


def test_a_pod_has_the_time_that_its_process_takes_to_stop() -> None:
    """A process may take what the code allows it, after the pause of `preStop`."""
    from consumers.training.worker import STOP_SECONDS as TRAIN
    from serving.running import STOP_SECONDS as SERVE
    from streams.loop.process import LEAVE_SECONDS
    from streams.loop.worker import COMMIT_SECONDS, HAND_OVER_SECONDS

    stream = HAND_OVER_SECONDS + COMMIT_SECONDS + LEAVE_SECONDS
    needed = {"judge": stream, "mine": stream, "otlp": stream, "train": TRAIN}
    needed |= dict.fromkeys(SERVERS, SERVE)
    for role, pod in pods(preset("operators")):
        pause = pod["containers"][0].get("lifecycle", {}).get("preStop", {"sleep": {"seconds": 0}})
        seconds = needed.get(role, 0) + pause["sleep"]["seconds"]
        assert bool(pause["sleep"]["seconds"]) == (role in SERVERS)
        assert pod["terminationGracePeriodSeconds"] >= 1.5 * seconds, role
