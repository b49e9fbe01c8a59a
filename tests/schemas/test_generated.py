"""The generated documents are in step with the models."""

import json

import pytest

from schemas.generated.__main__ import GENERATED, TOPIC_CONTRACTS, files
from schemas.settings import Settings
from schemas.topics import specs


@pytest.mark.parametrize("name", sorted(files()))
def test_a_generated_file_is_in_step(name):
    assert (GENERATED / name).read_bytes() == files()[name], "run `make schemas`"


def test_there_is_no_file_left_over():
    assert {path.name for path in GENERATED.glob("*.json")} == set(files())


def test_every_topic_is_described():
    described = set(json.loads(files()["asyncapi.json"])["channels"])
    names = {spec.name for spec in specs(Settings())}
    foreign = {"otlp_spans", "agent-spans"}  # OpenTelemetry's own protobuf
    assert described == {name for name in names - foreign if not name.endswith(".dlq")}
    assert described == set(TOPIC_CONTRACTS)
