"""deploy/compose agrees with the image, the settings, Kafka and the documentation."""

import re
from typing import Any

import pytest
import yaml

from deploy.kafka import server_properties
from schemas.settings import Settings
from schemas.topics import ADDED_BYTES, MAX_EVENT_BYTES
from tests.deploy.images import ROOT
from tests.docs.test_references import check

pytestmark = pytest.mark.deploy

FOLDER = ROOT / "deploy" / "compose"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WORKERS = ("judge", "mine", "train", "index")


def variables(text: str) -> dict[str, str]:
    """The assignments of an env file."""
    return dict(re.findall(r"^([A-Z]\w*)=(.*)$", text, re.M))


def test_services_are_those_of_the_images_and_settings() -> None:
    example = variables((FOLDER / ".env.example").read_text())
    used = set(re.findall(r"\$\{(\w+)\}", (FOLDER / "compose.yaml").read_text()))
    settings = {f"RETRAIL_{name.upper()}" for name in Settings.model_fields}
    assert used <= set(example)
    assert {name for name in example if not name.startswith("AWS_")} - used <= settings
    given = {
        name.removeprefix("RETRAIL_").lower(): value
        for name, value in example.items()
        if name in settings
    }
    assert Settings(**given).registry_url.startswith("s3://")
    containerfile = (ROOT / "deploy" / "Containerfile").read_text()
    for name, service in SERVICES.items():
        if "build" not in service:
            continue
        target = service["build"]["target"]
        assert service["image"] == f"${{{target.upper()}_IMAGE}}"
        assert example[f"{target.upper()}_IMAGE"] == f"retrail-{target}"
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges" in service["security_opt"], name
        if name != "fleet":
            check(service["command"])
        if name in (*WORKERS, "otlp", "serve", "mcp"):
            line = next(
                row for row in containerfile.splitlines() if row.startswith(f"# | {target} ")
            )
            assert re.search(rf"\b{name}\b", line), f"{name} is not in the table of {target}"


def test_secrets_are_files_and_kafka_has_our_settings() -> None:
    assert set(COMPOSE["secrets"]) == {
        secret for service in SERVICES.values() for secret in service.get("secrets", [])
    }
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}
        assert f"secrets/{name}" in (ROOT / "docs" / "deploy.md").read_text()
    ours = dict(line.split("=", 1) for line in server_properties("d", 1, 2).splitlines())
    kafka = SERVICES["kafka"]["environment"]
    written = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): str(value)
        for name, value in kafka.items()
    }
    assert set(written) <= set(ours)
    own = {"controller.quorum.voters", "log.dirs", "listener.security.protocol.map"}
    for name in set(written) - own - {"listeners", "advertised.listeners"}:
        assert written[name] == ours[name], name
    assert written["message.max.bytes"] == str(MAX_EVENT_BYTES + ADDED_BYTES)


def test_prometheus_scrapes_every_role() -> None:
    jobs = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    found = {
        config["labels"]["role"]: config["targets"]
        for job in jobs
        for config in job["static_configs"]
    }
    assert found == {role: [f"{role}:9100"] for role in (*WORKERS, "serve")}
    assert set(found) <= set(SERVICES)
