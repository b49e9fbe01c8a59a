"""Builds in a real Milvus, with encoders of plain numbers."""

import secrets
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from consumers.indexing.collection import Row
from consumers.indexing.milvus import Milvus
from retrail_runtime.milvus import Build, collection_name
from schemas import SearchMode
from schemas.settings import Settings

DIMENSION = 16
URLS = {"a": "https://example.org/a"}
"""Documents with a URL."""
NOBODY: Mapping[str, str] = {}


class Numbers:
    """An encoder whose space depends on its version: texts are seeds."""

    def __init__(self, version: int) -> None:
        self.version = version

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        seeds = [[self.version, *text.encode()] for text in texts]
        vectors = np.array([np.random.default_rng(s).normal(size=DIMENSION) for s in seeds])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def settings_for(uri: str) -> Settings:
    return Settings(milvus_uri=uri, retriever=f"r{secrets.token_hex(4)}")


def put(
    settings: Settings,
    version: int,
    texts: Sequence[str],
    *,
    alias: bool = True,
    search: SearchMode = "dense",
    rebuild: str = "",
    owners: Mapping[str, str] = NOBODY,
    tenants: bool = True,
) -> Build:
    """A build whose documents are named by their texts; ``owners`` of some."""
    shell = Milvus(settings, vector_index="FLAT")
    build = Build(
        collection_name(settings.retriever, version, rebuild),
        version,
        secrets.token_hex(4),
        "somewhere",
        f"{version:064}",
        search=search,
        tenants=tenants,
    )
    shell.create(build, DIMENSION)
    vectors = Numbers(version).encode_queries(texts)
    shell.upsert(
        build,
        [
            Row(t, "title", f"text {t}", "h", v, URLS.get(t, ""), owners.get(t, ""))
            for t, v in zip(texts, vectors, strict=True)
        ],
    )
    shell.make_searchable(build)
    if alias:
        shell.swap(build)
    return build


def numbers(_: Settings, build: Build) -> Numbers:
    return Numbers(build.version)
