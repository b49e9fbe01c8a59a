"""A real Milvus Lite server over its folder."""

import importlib.util
from pathlib import Path

import pytest
from pymilvus import DataType, MilvusClient

from deploy.errors import MissingToolError
from deploy.milvus import MilvusLite


@pytest.mark.integration
def test_rows_and_port_survive_restart_and_kill(tmp_path: Path) -> None:
    server = MilvusLite(tmp_path, tmp_path / "milvus.log")
    server.start()
    try:
        first = server.client_address
        client = MilvusClient(uri=first)
        schema = client.create_schema()
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=10)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
        index = client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="IP")
        client.create_collection("things", schema=schema, index_params=index)
        client.upsert("things", [{"id": "a", "vector": [1.0, 0.0]}])
        client.flush("things")
        server.stop()
        assert server.child is not None
        assert server.child.exit_status == 0
        assert "Shutting down" in server.child.log_tail()

        server.start()
        assert server.client_address == first
        assert ids(first) == ["a"]
        MilvusClient(uri=first).upsert("things", [{"id": "b", "vector": [0.0, 1.0]}])
        server.kill()
        server.start()
        assert ids(first) == ["a", "b"]
    finally:
        server.stop()


def ids(uri: str) -> list[str]:
    client = MilvusClient(uri=uri)
    client.load_collection("things")
    rows = client.query("things", 'id != ""', consistency_level="Strong")
    return sorted(row["id"] for row in rows)


def test_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingToolError, match=r"pip install 'retrail-server\[local\]'.*RETRAIL_MILVUS_URI"
    ):
        MilvusLite(tmp_path, tmp_path / "log").start()
