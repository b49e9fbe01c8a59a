"""An installation of its own in a real Milvus."""

from collections.abc import Iterator

import pytest

from consumers.indexing.milvus import Milvus
from schemas.settings import Settings
from tests.serving.numbers import settings_for


@pytest.fixture
def here(milvus: str) -> Iterator[Settings]:
    settings = settings_for(milvus)
    yield settings
    shell = Milvus(settings)
    for build in shell.builds():
        shell.drop(build)
