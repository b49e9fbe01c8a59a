"""Which Milvus a test runs on: marks for tests that use ``milvus_uri`` (``settings`` does)."""

import pytest

on_both = pytest.mark.parametrize("milvus_uri", ["milvus", "standalone"], indirect=True)
"""On Milvus Lite's server and on the standalone one."""

standalone_in_faults = pytest.mark.parametrize(
    "milvus_uri",
    ["milvus", pytest.param("standalone", marks=pytest.mark.faults)],
    indirect=True,
)
"""On Milvus Lite's server, and in the long campaigns on the standalone one."""

on_s3 = pytest.mark.timeout(1800)
"""On the S3 server, which the first test builds if it is not built yet: that takes minutes."""
