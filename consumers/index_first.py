"""The first release: the untrained model that ``RETRAIL_MODEL`` names, as version 1."""

from datetime import UTC, datetime

import structlog

from consumers import kafka, releases
from schemas.releases import Live, Release
from schemas.settings import Settings
from trainer.encoder import Encoder
from trainer.registry import Registry

log = structlog.get_logger(__name__)

FIRST_VERSION = 1


def register_first(settings: Settings) -> None:
    """Publish the first model and make it live, unless something is live already.

    To be called by one process at a time, the leader of the index workers. Safe to repeat after a
    crash: the registry takes equal files twice, and ``live`` is written last.

    Raises:
        ModelError: there is no such model, or the registry holds another one as version 1.
        BrokerUnavailable, TopicMismatch, NotAcknowledged: from Kafka.
    """
    if releases.read(settings).live is not None:
        return
    log.info("registering the first model", model=settings.model)
    encoder = Encoder.load(
        settings.model,
        query_prefix=settings.query_prefix,
        document_prefix=settings.document_prefix,
        pooling=settings.pooling,
        max_tokens=settings.max_tokens,
    )
    published = Registry(settings.registry_dir).publish(
        settings.retriever, FIRST_VERSION, encoder.save
    )
    now = datetime.now(UTC)
    release = Release(
        version=FIRST_VERSION,
        retriever=settings.retriever,
        model=published.model,
        created_at=now,
        queries=0,
        decision="first",
        reason=f"the untrained model {settings.model}",
    )
    producer = kafka.producer(settings)
    releases.write_release(producer, settings, release)
    live = Live(version=FIRST_VERSION, why="the first release", changed_at=now)
    releases.write_live(producer, settings, live)
    log.info("first release is live", version=FIRST_VERSION, model=settings.model)
