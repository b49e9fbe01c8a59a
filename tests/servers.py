"""Which Milvus a test runs on: marks for tests that use ``milvus_uri`` (``settings`` does)."""

import pytest

on_both = pytest.mark.parametrize("milvus_uri", ["milvus", "standalone"], indirect=True)
"""On Milvus Lite's server and on the standalone one."""
