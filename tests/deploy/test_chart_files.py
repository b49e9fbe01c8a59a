"""What the chart has of the code: topics, rights, settings, version. Without Helm."""

import importlib.util
import json
from types import ModuleType

import yaml

import retrail
from schemas.settings import Settings, secret_fields
from tests.deploy.chart import CHART, FIXED


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_chart", CHART.parent / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_topics_and_rights_are_those_of_the_code() -> None:
    for path, content in generator().files().items():
        assert path.read_text() == content, "run `python deploy/helm/generate.py`"


def test_the_schema_has_every_setting_and_every_secret() -> None:
    definitions = json.loads((CHART / "values.schema.json").read_text())["$defs"]
    named = {
        kind: {name for name in definitions[kind]["properties"] if name.startswith("RETRAIL_")}
        for kind in ("settings", "secrets")
    }
    every = {f"RETRAIL_{name.upper()}" for name in Settings.model_fields}
    secret = {f"RETRAIL_{name.upper()}" for name in secret_fields()}
    assert named["settings"] == every - secret - FIXED
    assert named["secrets"] == secret | {"RETRAIL_KAFKA_SASL_USERNAME"}


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == retrail.__version__


def test_rules_and_dashboards_are_links() -> None:
    """Links of folders would leave the linked folder out of the wheel."""
    deploy = CHART.parents[1]
    for folder, pattern in (("prometheus", "*.yml"), ("grafana", "*.json")):
        linked = {path.resolve() for path in (CHART / "files" / folder).iterdir()}
        assert linked == set((deploy / folder).glob(pattern))
        assert not (CHART / "files" / folder).is_symlink()
