"""The chart: what Helm makes of it, held against Kubernetes' and the operators' own schemas.

No cluster runs here: nothing was installed, and no operator acted on a resource.
"""

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deploy.errors import MissingToolError
from schemas.rights import ROLES, principal, rights
from schemas.settings import Settings, secret_fields
from schemas.topics import Topics, specs
from tests.deploy.chart import (
    CHART,
    KUBERNETES,
    PRESETS,
    RELEASE,
    SERVERS,
    Manifest,
    helm,
    manifests,
    of_kind,
    pods,
    preset,
    role_of,
    template,
    variables,
)
from tests.servers import go_modules

# The first test builds Helm.
pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]
each_preset = pytest.mark.parametrize("name", PRESETS)

CUSTOM = {
    "keda.sh": ("github.com/kedacore/keda/v2", "2.21.0", "config/crd/bases"),
    "monitoring.coreos.com": (
        *("github.com/prometheus-operator/prometheus-operator", "0.94.1"),
        "example/prometheus-operator-crd",
    ),
}
"""Modules and folders with the definitions of custom resources; no package has Strimzi's."""


def strict(schema: Any) -> Any:
    """A schema that also refuses fields that it does not name, as ``kubectl`` does."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    open_ended = (
        found.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in found
    )
    if isinstance(found.get("properties"), dict) and not open_ended:
        found["additionalProperties"] = False
    return found


@cache
def custom_schema(group: str, version: str, kind: str) -> Any:
    """The schema of a custom resource, from the definition that its operator publishes."""
    module, released, path = CUSTOM[group]
    try:
        folder = go_modules.folder(module, released) / path
    except MissingToolError as error:
        pytest.skip(str(error))
    definition = yaml.safe_load((folder / f"{group}_{kind.lower()}s.yaml").read_text())["spec"]
    served = {item["name"]: item["schema"]["openAPIV3Schema"] for item in definition["versions"]}
    schema = strict(served[version])
    # Its own schema is Kubernetes'.
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def validate(manifest: Manifest) -> None:
    """Fail unless a manifest is of its schema, without fields that it does not have."""
    group, _, version = manifest["apiVersion"].partition("/")
    if group in CUSTOM:
        # Without a check of the schema itself: its patterns are Go's.
        schema = custom_schema(group, version, manifest["kind"])
        jsonschema.Draft202012Validator(schema).validate(manifest)
    elif group != "kafka.strimzi.io":
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@each_preset
def test_helm_finds_no_fault(name: str) -> None:
    values = str(CHART / "presets" / f"{name}.yaml")
    done = helm("lint", "--strict", str(CHART), "--values", values)
    assert done.returncode == 0, done.stdout


@each_preset
def test_every_manifest_is_of_its_schema(name: str) -> None:
    found = preset(name)
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in found]
    assert len(names) == len(set(names)) > 15
    for manifest in found:
        validate(manifest)


def test_the_check_refuses_what_a_schema_does_not_have() -> None:
    for kind in ("Deployment", "ScaledObject", "PodMonitor"):
        manifest = json.loads(json.dumps(of_kind(kind, preset("operators"))[0]))
        manifest["spec"]["replicaz"] = 1
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
            validate(manifest)


@each_preset
def test_every_pod_is_restricted(name: str) -> None:
    """As the Pod Security Standard `restricted`, with a root file system that is read-only."""
    found = dict(pods(preset(name)))
    assert {"judge", "mine", "train", "index", "serve"} <= set(found)
    for pod in found.values():
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == 10001
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert {"emptyDir", "secret"} >= {
            key for one in pod["volumes"] for key in set(one) - {"name"}
        }
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]
            assert all("hostPort" not in port for port in container.get("ports", ()))


@each_preset
def test_secrets_are_references(name: str) -> None:
    secret = {f"RETRAIL_{field.upper()}" for field in secret_fields()} | {"AWS_SECRET_ACCESS_KEY"}
    assert not [manifest for manifest in preset(name) if manifest["kind"] == "Secret"]
    for role, pod in pods(preset(name)):
        given = variables(pod)
        for variable in secret & set(given):
            assert set(given[variable]) == {"name", "key"}, variable
        serves = {found for found in given if found.startswith("RETRAIL_SERVE_")}
        assert bool(serves) == (role in SERVERS), role
        assert "AWS_SECRET_ACCESS_KEY" not in given or role in ("train", "index", *SERVERS)


@each_preset
def test_each_role_has_its_budget_spread_and_network(name: str) -> None:
    found = preset(name)
    budgets = {role_of(budget): budget["spec"] for budget in of_kind("PodDisruptionBudget", found)}
    for role, pod in pods(found):
        if role == "topics":
            continue
        label = {
            "app.kubernetes.io/name": "retrail",
            "app.kubernetes.io/instance": RELEASE,
            "app.kubernetes.io/component": role,
        }
        [spread] = pod["topologySpreadConstraints"]
        assert spread["labelSelector"]["matchLabels"] == label
        assert budgets.pop(role) == {"maxUnavailable": 1, "selector": {"matchLabels": label}}
    assert budgets == {}
    policies = of_kind("NetworkPolicy", found)
    assert [policy["metadata"]["name"] for policy in policies] == [
        f"{RELEASE}-servers",
        f"{RELEASE}-workers",
    ]
    for policy in policies:
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        assert policy["spec"]["ingress"][0]["ports"] == [{"port": 9100}]
    assert policies[1]["spec"]["ingress"][0]["from"]


def test_a_consumer_is_replaced_before_there_are_more_than_partitions() -> None:
    for deployment in of_kind("Deployment", preset("operators")):
        update = deployment["spec"]["strategy"]["rollingUpdate"]
        surge = role_of(deployment) in SERVERS
        assert update == {"maxSurge": int(surge), "maxUnavailable": int(not surge)}
        assert "replicas" not in deployment["spec"], "a scaler sets it"


def test_the_trainer_has_a_volume_and_a_gpu() -> None:
    [trainer] = of_kind("StatefulSet", preset("operators"))
    [claim] = trainer["spec"]["volumeClaimTemplates"]
    [container] = trainer["spec"]["template"]["spec"]["containers"]
    assert {"name": claim["metadata"]["name"], "mountPath": "/data"} in container["volumeMounts"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    services = [item["metadata"]["name"] for item in of_kind("Service", preset("operators"))]
    assert trainer["spec"]["serviceName"] in services


def test_the_scalers_read_what_falls_to_0() -> None:
    scalers = {
        role_of(found): found["spec"] for found in of_kind("ScaledObject", preset("operators"))
    }
    assert set(scalers) == {"judge", "mine", "otlp", "index", "serve", "mcp"}
    kinds = {role: scaler["triggers"][0]["type"] for role, scaler in scalers.items()}
    assert kinds == {
        **{"judge": "kafka", "mine": "prometheus", "otlp": "prometheus", "index": "prometheus"},
        **{"serve": "cpu", "mcp": "cpu"},
    }
    for role, scaler in scalers.items():
        assert 1 <= scaler["minReplicaCount"] <= scaler["maxReplicaCount"] <= 12, role
    many = {"roles": {"judge": {"maxReplicas": 99}}, "settings": {"RETRAIL_PARTITIONS": "6"}}
    limited = of_kind("ScaledObject", manifests("operators", many))
    assert {role_of(one): one["spec"]["maxReplicaCount"] for one in limited}["judge"] == 6
    judge = scalers["judge"]["triggers"][0]
    assert (judge["metadata"]["sasl"], judge["metadata"]["tls"]) == ("scram_sha512", "enable")
    [authentication] = of_kind("TriggerAuthentication", preset("operators"))
    assert judge["authenticationRef"]["name"] == authentication["metadata"]["name"]
    judging = variables(dict(pods(preset("operators")))["judge"])
    assert {item["name"] for item in authentication["spec"]["env"]} <= set(judging)


INSTALLATIONS = {
    "defaults": {},
    "prefix": {"topic_prefix": "Eu_", "revision": "v2", "partitions": 7, "replication": 1},
    "retention": {"kafka_retention_hours": 1000.5, "pairs_retention_hours": 48.0},
}


@pytest.mark.parametrize("changed", INSTALLATIONS.values(), ids=INSTALLATIONS)
def test_strimzi_gets_the_topics_and_rights_of_the_code(changed: dict[str, Any]) -> None:
    settings = Settings(**{"replication": 3, "partitions": 4} | changed)
    values = {f"RETRAIL_{name.upper()}": str(value) for name, value in changed.items()}
    found = manifests("strimzi", {"settings": values})

    topics = {item["spec"]["topicName"]: item["spec"] for item in of_kind("KafkaTopic", found)}
    assert topics == {
        spec.name: {
            "topicName": spec.name,
            "partitions": spec.partitions,
            "replicas": spec.replication,
            "config": spec.config(),
        }
        for spec in specs(settings)
    }
    for topic in of_kind("KafkaTopic", found):
        assert topic["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}

    users = {item["metadata"]["name"]: item["spec"] for item in of_kind("KafkaUser", found)}
    names = {role: principal(settings, role).lower().replace("_", "-") for role in ROLES}
    assert set(users) == set(names.values())
    for role, name in names.items():
        given = [
            (
                acl["resource"]["type"],
                acl["resource"]["name"],
                tuple(acl["operations"]),
                acl["resource"]["patternType"] == "prefix",
            )
            for acl in users[name]["authorization"]["acls"]
        ]
        assert given == [tuple(asdict(right).values()) for right in rights(settings, role)]
    for role, pod in pods(found):
        given_variables = variables(pod)
        user = given_variables["RETRAIL_KAFKA_SASL_USERNAME"]
        assert user in users
        assert user.endswith(role)
        secret = {"name": user, "key": "password"}
        assert given_variables["RETRAIL_KAFKA_SASL_PASSWORD"] == secret


def test_the_judge_is_scaled_by_its_own_group_and_topic() -> None:
    values = {"settings": {"RETRAIL_TOPIC_PREFIX": "eu_", "RETRAIL_REVISION": "v2"}}
    settings = Settings(topic_prefix="eu_", revision="v2")
    found = of_kind("ScaledObject", manifests("operators", values))
    [trigger] = next(one for one in found if role_of(one) == "judge")["spec"]["triggers"]
    assert trigger["metadata"]["topic"] == Topics.of(settings).trajectory_events
    assert trigger["metadata"]["consumerGroup"] == settings.group("judge", revised=True)


def test_monitoring_gets_the_files_of_this_repository() -> None:
    found = manifests("operators", {"monitoring": {"docs": "https://example.org/"}})
    rules = {item["metadata"]["name"]: item["spec"] for item in of_kind("PrometheusRule", found)}
    root = Path(__file__).parents[2]
    for name in ("alerts", "rules"):
        text = (root / "deploy" / "prometheus" / f"{name}.yml").read_text()
        text = text.replace("runbook_url: docs/", "runbook_url: https://example.org/docs/")
        assert rules[f"{RELEASE}-{name}"] == yaml.safe_load(text)
    boards = {
        name: json.loads(text)
        for item in of_kind("ConfigMap", found)
        for name, text in item["data"].items()
    }
    files = (root / "deploy" / "grafana").glob("*.json")
    assert boards == {file.name: json.loads(file.read_text()) for file in files}
    workers, servers = sorted(
        of_kind("PodMonitor", found), key=lambda item: str(item["metadata"]["name"]), reverse=True
    )
    [endpoint] = servers["spec"]["podMetricsEndpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "retrail-serve", "key": "token"}
    [endpoint] = workers["spec"]["podMetricsEndpoints"]
    labels = {item["targetLabel"] for item in endpoint["relabelings"]}
    assert labels == {"job", "role", "instance"}


MISTAKES = {
    "an unknown setting": ({"settings": {"RETRAIL_PARTITION": "4"}}, "RETRAIL_PARTITION"),
    "a secret in clear": ({"settings": {"RETRAIL_MILVUS_TOKEN": "root"}}, "RETRAIL_MILVUS_TOKEN"),
    "a secret that is no reference": ({"secrets": {"RETRAIL_SERVE_TOKEN": "abc"}}, "object"),
    "a local registry": ({"settings": {"RETRAIL_REGISTRY": "/models"}}, "RETRAIL_REGISTRY"),
    "an unknown role": ({"roles": {"miner": {"replicas": 2}}}, "miner"),
    "no judge": ({"roles": {"judge": {"replicas": 0}}}, "replicas"),
    "more than partitions": ({"roles": {"mine": {"replicas": 5}}}, "more than the 4 partitions"),
    "no secret of serve": ({"secrets": {"RETRAIL_SERVE_SECRET": None}}, "RETRAIL_SERVE_SECRET"),
    "no Prometheus": ({"scaling": {"enabled": True}}, "scaling.prometheus"),
}


@pytest.mark.parametrize(("values", "named"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_refused_with_its_name(values: dict[str, Any], named: str) -> None:
    done = template("external", values)
    assert done.returncode != 0
    assert named in done.stderr


def test_required_settings_are_named() -> None:
    done = helm("template", RELEASE, str(CHART))
    assert done.returncode != 0
    for name in ("RETRAIL_KAFKA_BOOTSTRAP", "RETRAIL_MILVUS_URI", "RETRAIL_REGISTRY"):
        assert name in done.stderr
