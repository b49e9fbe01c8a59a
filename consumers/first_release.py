"""The first release: ``RETRAIL_MODEL``, untrained."""

from dataclasses import replace
from datetime import UTC, datetime

import structlog

from consumers import releases
from retrail_runtime import kafka
from schemas.releases import Live, Release
from schemas.settings import Settings
from trainer.data.releases import FIRST
from trainer.model import presets
from trainer.model.encoder import Encoder
from trainer.model.location import locate
from trainer.registry.card import first_card
from trainer.registry.registry import Registry

log = structlog.get_logger(__name__)


def register_first(settings: Settings) -> Release:
    """Make ``RETRAIL_MODEL``, untrained, version 1 and live.

    1. Publish the model into the registry and write its card. *After a crash*: again, with the same
       files.
    2. Write the release. *After a crash*: the release is found, and only 3 is done.
    3. Write ``live``.

    For the leading index worker, or with RETRAIL_GATE=trainer for the active trainer. Two at once
    write the same records.

    Returns:
        The first release.

    Raises:
        ModelError: there is no such model, or version 1 in the registry is another model.
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
    """``RETRAIL_MODEL`` with the preset and prefixes of the settings, as in the first release.

    Raises:
        ModelError: it cannot be loaded.
    """
    preset = presets.preset(settings.train_preset, locate(settings.model), settings.model)
    preset = replace(
        preset,
        query_prefix=settings.index_query_prefix or preset.query_prefix,
        document_prefix=settings.index_document_prefix or preset.document_prefix,
    )
    return Encoder.load(settings.model, preset=preset, max_tokens=settings.index_max_tokens)


def _first(settings: Settings) -> Release:
    encoder = load_model(settings)
    registry = Registry.of(settings)
    release = Release(
        version=FIRST,
        retriever=settings.retriever,
        model=registry.publish(settings.retriever, FIRST, encoder.save),
        created_at=datetime.now(UTC),
        decision="first",
        reason=f"the untrained model {settings.model}",
    )
    query_prompt, document_prompt = encoder.prompts
    text = first_card(
        release,
        settings.model,
        max_tokens=encoder.max_tokens,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
    )
    registry.write_beside(release.model, "md", text)
    return release
