"""The search target: a collection with the model that built it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrail_runtime.milvus import Build
from schemas.releases import Model
from schemas.settings import Settings

if TYPE_CHECKING:
    from trainer.model.encoder import Encoder


@dataclass(frozen=True, slots=True)
class Target:
    """A build and the encoder of its model: a query vector never meets another model's space."""

    build: Build
    encoder: "Encoder"


def load_encoder(settings: Settings, build: Build) -> "Encoder":
    """The encoder of a build's model, from the registry.

    Raises:
        ModelError: it is not there, or its digest is not the build's.
    """
    # Importing torch takes seconds, and without an index it is not needed.
    from trainer.registry.registry import Registry

    return Registry.of(settings).load(Model(location=build.location, digest=build.digest))
