"""What a server's version says."""

import pytest

from retrail_runtime.milvus import require_search
from schemas.errors import ConfigurationError
from schemas.settings import Settings

HYBRID = Settings(index_search="hybrid", milvus_uri="http://milvus:19530")


@pytest.mark.parametrize(
    "version",
    ["v2.5.0", "2.5-20250101-0a1b", "2.6.6", "v2.10.1", "3.0.0", "milvus_lite-3.2.2", "0a1b2c3"],
)
def test_servers_that_compute_bm25_can_be_searched_by_both(version: str) -> None:
    require_search(HYBRID, version)


@pytest.mark.parametrize("version", ["v2.3.5", "2.4.17", "1.1"])
def test_an_older_server_is_refused_and_told_what_to_do(version: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"2\.5 or newer; .*//milvus:19530 is {version}"):
        require_search(HYBRID, version)
    require_search(Settings(), version)
