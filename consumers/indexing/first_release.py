"""The first release: the untrained model, so that there is something to search with."""

from datetime import UTC, datetime

import structlog

from consumers import releases
from retrail_runtime import kafka
from schemas.releases import Live, Release
from schemas.settings import Settings
from trainer.model import presets
from trainer.model.encoder import Encoder
from trainer.model.models import locate
from trainer.registry.card import first_card
from trainer.registry.registry import Registry

log = structlog.get_logger(__name__)

FIRST = 1


def register(settings: Settings) -> Release:
    """Make ``RETRAIL_MODEL`` version 1 and live, as far as that has not happened yet.

    1. The model is published into the registry, and its card written. *A crash here*: again, with
       the same files.
    2. The release is acknowledged. *A crash here*: found, and only 3 is done.
    3. ``live`` is acknowledged.

    For the leading index worker; two at once write the same records.

    Returns:
        The first release.

    Raises:
        ModelError: there is no such model, or another one is version 1 in the registry.
        BrokerUnavailableError, TopicMismatchError, DeliveryError: from Kafka.
    """
    known = releases.read(settings)
    producer = kafka.producer(settings)
    release = known.by_version.get(FIRST)
    if release is None:
        release = _first(settings)
        releases.write_release(producer, settings, release)
        log.info("first release", model=settings.model, location=release.model.location)
    if known.live is None:
        live = Live(version=FIRST, why="the first release", changed_at=datetime.now(UTC))
        releases.write_live(producer, settings, live)
    return release


def load_model(settings: Settings) -> Encoder:
    """``RETRAIL_MODEL`` with the preset and prefixes of the settings, as the first release has it.

    Raises:
        ModelError: it cannot be loaded.
    """
    preset = presets.preset(settings.train_preset, locate(settings.model), settings.model)
    return Encoder.load(
        settings.model,
        preset=preset,
        query_prefix=settings.index_query_prefix,
        document_prefix=settings.index_document_prefix,
        pooling=settings.pooling,
        max_tokens=settings.index_max_tokens,
    )


def _first(settings: Settings) -> Release:
    encoder = load_model(settings)
    registry = Registry.of(settings)
    published = registry.publish(settings.retriever, FIRST, encoder.save)
    release = Release(
        version=FIRST,
        retriever=settings.retriever,
        model=published.model,
        created_at=datetime.now(UTC),
        decision="first",
        reason=f"the untrained model {settings.model}",
    )
    layout = encoder.layout
    text = first_card(
        release,
        settings.model,
        max_tokens=layout.max_tokens,
        query_prompt=layout.query_prefix,
        document_prompt=layout.document_prefix,
    )
    registry.write_beside(release.model, "md", text)
    return release
