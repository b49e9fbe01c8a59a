"""What a search needs together: a collection, and the model that built it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pymilvus import MilvusClient

from retrail_runtime import milvus
from schemas.collection import Build
from schemas.errors import ModelError, NoIndexError
from schemas.releases import Model
from schemas.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class QueryEncoder(Protocol):
    """What is needed of an encoder."""

    def encode_queries(self, texts: "Sequence[str]") -> "NDArray[np.float32]":
        """One L2-normalised vector a query."""


@dataclass(frozen=True, slots=True)
class Target:
    """A build and the encoder of its model: a query vector never meets another model's space."""

    build: Build
    encoder: QueryEncoder


def load_encoder(settings: Settings, build: Build) -> QueryEncoder:
    """The encoder of a build's model, from the registry.

    Raises:
        ModelError: it is not there, or its files are not those that the build was made with.
    """
    # Importing torch takes seconds, which nobody should wait for who asks for an unknown index.
    from trainer.registry.registry import Registry

    model = Model(location=build.location, digest=build.digest)
    return Registry.of(settings).load(model)


def resolve(client: MilvusClient, settings: Settings) -> Build:
    """The build that the alias points at: name, version and model from one answer.

    Raises:
        NoIndexError: there is no such alias.
        MilvusException, grpc.RpcError: Milvus failed.
    """
    alias = settings.retriever
    try:
        found = client.describe_collection(alias, timeout=milvus.CALL_TIMEOUT)
        name = str(found["collection_name"])
        if name == alias:
            # Milvus 2.3 answers with the name that it was asked for.
            answer = client.describe_alias(alias, timeout=milvus.CALL_TIMEOUT)
            name = str(answer["collection_name"])
            found = client.describe_collection(name, timeout=milvus.CALL_TIMEOUT)
    except milvus.FAILURES as error:
        if milvus.is_missing(error):
            raise NoIndexError(
                f"There is no index yet: Milvus at {settings.milvus_uri} has no alias {alias!r}. "
                "It appears when an index worker (`retrail worker index`) has built the live "
                "release. Load documents with `retrail documents load`; if they are loaded and the "
                "worker runs, wait for its message `index swapped in`."
            ) from error
        raise
    build = Build.read(name, found.get("properties") or {})
    if build is None:
        raise ModelError(
            f"The collection {name}, which the alias {alias!r} points at, was not built by "
            "Retrail: it does not say which model its vectors are of. Set RETRAIL_RETRIEVER to "
            "another name."
        )
    return build
