"""The chart, rendered by Helm, which Go builds once."""

import functools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.errors import MissingToolError
from tests.servers import go_modules

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "retrail"
PRESETS = sorted(path.stem for path in (CHART / "presets").glob("*.yaml"))
HELM = ("helm.sh/helm/v3/cmd/helm", "3.22.0")
KUBERNETES = "1.34.0"
RELEASE, NAMESPACE = "r", "search"
SERVERS = ("serve", "mcp")
FIXED = {"RETRAIL_DATA_DIR", "RETRAIL_METRICS_HOST", "RETRAIL_METRICS_PORT"}
"""Settings that the image has, which the chart relies on."""

Manifest = dict[str, Any]


def helm(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run Helm on ``given``; skips the test where it must be built and there is no Go."""
    try:
        program = go_modules.built(*HELM)
    except MissingToolError as error:
        pytest.skip(str(error))
    command = [str(program), *arguments, "--kube-version", KUBERNETES]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, input=given)


def template(preset: str, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """``helm template`` with a preset, and with values that override it."""
    return helm(
        *("template", RELEASE, str(CHART), "--namespace", NAMESPACE),
        *("--values", str(CHART / "presets" / f"{preset}.yaml"), "--values", "-"),
        given=json.dumps(values or {}),
    )


def manifests(preset: str, values: dict[str, Any] | None = None) -> list[Manifest]:
    """What the chart makes of a preset."""
    done = template(preset, values)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


@functools.cache
def preset(name: str) -> list[Manifest]:
    """What the chart makes of a preset as it is."""
    return manifests(name)


def of_kind(kind: str, found: list[Manifest]) -> list[Manifest]:
    """Manifests of one kind, at least one."""
    some = [manifest for manifest in found if manifest["kind"] == kind]
    assert some, kind
    return some


def role_of(manifest: Manifest) -> str:
    """The role that a manifest is of."""
    return str(manifest["metadata"]["labels"]["app.kubernetes.io/component"])


def pods(found: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every role with the specification of its pod, and `topics` with that of its Job."""
    for manifest in found:
        if manifest["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield role_of(manifest), manifest["spec"]["template"]["spec"]


def variables(pod: Manifest) -> dict[str, Any]:
    """Names of variables with a value, or with the reference to a secret."""
    [container] = pod["containers"]
    found = [
        (item["name"], item.get("value") or item["valueFrom"]["secretKeyRef"])
        for item in container["env"]
    ]
    assert len(found) == len(dict(found))
    return dict(found)
