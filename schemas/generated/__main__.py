"""JSON Schema and AsyncAPI documents of the contracts: ``python -m schemas.generated``.

They are for readers in other languages; the pydantic models are the truth, and a test keeps the
files in ``schemas/generated`` in step with them.
"""

from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import Field, TypeAdapter

from schemas import events, judged
from schemas.documents import Document
from schemas.erasures import Erasure
from schemas.events import OutcomeReport
from schemas.pairs import LabelledPair
from schemas.releases import Record
from schemas.runs import RunManifest
from schemas.settings import Settings
from schemas.topics import TopicSpec, specs

GENERATED = Path(__file__).parent

CONTRACTS: dict[str, TypeAdapter[Any]] = {
    "trajectory-event": events.adapter,
    "judged-event": judged.adapter,
    "labelled-pair": TypeAdapter(LabelledPair),
    "document": TypeAdapter(Document),
    "run-manifest": TypeAdapter(RunManifest),
    "outcome-report": TypeAdapter(OutcomeReport),
    "release": TypeAdapter(Annotated[Record, Field(union_mode="left_to_right")]),
    "erasure": TypeAdapter(Erasure),
}

TOPIC_CONTRACTS = {
    "trajectory-events": ("trajectory-event", "trajectory_id"),
    "judged-events": ("judged-event", "trajectory_id; none on a tick or a skip"),
    "labelled-pairs": ("labelled-pair", "trajectory_id"),
    "documents": ("document", "doc_id; an empty value deletes"),
    "training-runs": ("run-manifest", "run_id"),
    "outcomes": ("outcome-report", "trajectory_id; an empty value takes the report back"),
    "retriever-releases": ("release", "the version, 'decision:' and the version, or 'live'"),
    "erasures": ("erasure", "erasure_id"),
}


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (2020-12) of every contract, by name."""
    return {
        name: {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name}
        | adapter.json_schema(mode="validation")
        for name, adapter in CONTRACTS.items()
    }


def asyncapi() -> dict[str, Any]:
    """An AsyncAPI 3.0 document of the topics with default settings."""
    by_name = {spec.name: spec for spec in specs(Settings.model_construct())}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Retrail",
            "version": events.SCHEMA_VERSION,
            "description": "Topics of the loop from search agents' trajectories to a retriever.",
        },
        "channels": {
            topic: _channel(topic, contract, key, by_name[topic])
            for topic, (contract, key) in TOPIC_CONTRACTS.items()
        },
        "components": {
            "messages": {
                contract: {
                    "name": contract,
                    "contentType": "application/json",
                    "payload": {"$ref": f"./{contract}.schema.json"},
                }
                for contract in CONTRACTS
            }
        },
    }


def _channel(topic: str, contract: str, key: str, spec: TopicSpec) -> dict[str, Any]:
    return {
        "address": topic,
        "description": f"Record key: {key}.",
        "messages": {contract: {"$ref": f"#/components/messages/{contract}"}},
        "bindings": {
            "kafka": {
                "partitions": spec.partitions,
                "replicas": spec.replication,
                "topicConfiguration": {
                    "cleanup.policy": spec.config()["cleanup.policy"].split(","),
                    "retention.ms": spec.retention_ms,
                },
                "bindingVersion": "0.5.0",
            }
        },
    }


def files() -> dict[str, bytes]:
    """Every generated file by name."""
    contents: dict[str, Any] = {
        f"{name}.schema.json": schema for name, schema in json_schemas().items()
    }
    contents["asyncapi.json"] = asyncapi()
    option = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return {name: orjson.dumps(content, option=option) for name, content in contents.items()}


def main() -> None:
    """Write the files."""
    GENERATED.mkdir(exist_ok=True)
    for name, content in files().items():
        (GENERATED / name).write_bytes(content)


if __name__ == "__main__":
    main()
