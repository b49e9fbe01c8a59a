"""Releases in the index worker: follow them, register the first one, request a rebuild."""

import secrets
from contextlib import closing
from datetime import UTC, datetime

import structlog
from confluent_kafka import KafkaException, TopicPartition

from consumers import releases
from consumers.indexing import plan
from consumers.indexing.milvus import Milvus
from retrail_runtime import kafka
from retrail_runtime.milvus import collection_name
from schemas.errors import (
    BrokerUnavailableError,
    InputError,
    RestartRequiredError,
    TopicMismatchError,
)
from schemas.releases import Live, Release
from schemas.settings import Settings
from schemas.topics import Topics
from trainer.data.releases import FIRST, Releases
from trainer.model import presets
from trainer.model.encoder import Encoder
from trainer.model.loading import locate
from trainer.registry.card import first_card
from trainer.registry.registry import Registry

log = structlog.get_logger(__name__)


class ReleaseWatch:
    """Follows the releases without a consumer group; for one thread."""

    def __init__(self, settings: Settings) -> None:
        """Read all releases.

        Raises:
            BrokerUnavailableError, TopicMismatchError: from Kafka.
        """
        self._settings = settings
        self._known = releases.read(settings)
        self._reader = kafka.consumer(settings)
        topic = Topics.of(settings).retriever_releases
        self._reader.assign([TopicPartition(topic, 0, self._known.next_offset)])

    def now(self) -> Releases:
        """All releases and ``live`` that have arrived.

        Raises:
            RestartRequiredError: reading failed.
        """
        try:
            messages = kafka.ready(self._settings, self._reader, 0)
            records = [
                record
                for record in map(kafka.record, messages)
                if record.offset >= self._known.next_offset
            ]
        except (BrokerUnavailableError, TopicMismatchError, KafkaException) as error:
            raise RestartRequiredError(f"Following the releases failed: {error}") from error
        if records:
            self._known = releases.follow(self._known, records)
        return self._known

    def close(self) -> None:
        """Leave Kafka."""
        self._reader.close()


def register_first(settings: Settings) -> Release:
    """Make ``RETRAIL_MODEL``, untrained, version 1 and live.

    1. Publish the model into the registry and write its card. *After a crash*: again, with the same
       files.
    2. Write the release. *After a crash*: the release is found, and only 3 is done.
    3. Write ``live``.

    For the leading index worker; two at once write the same records.

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
    return Encoder.load(
        settings.model,
        preset=preset,
        query_prefix=settings.index_query_prefix,
        document_prefix=settings.index_document_prefix,
        max_tokens=settings.index_max_tokens,
    )


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


def request_rebuild(settings: Settings) -> str:
    """Request another build of the live release: ``retrail index rebuild``.

    The request is a property of the live release's collection: the id of the next build. The
    leading index worker creates that build with its own settings, and swaps it in when it is
    complete.

    Returns:
        The name of the new collection.

    Raises:
        InputError: there is no collection of the live release yet.
        BrokerUnavailableError, TopicMismatchError: from Kafka.
        MilvusUnavailableError: Milvus does not answer now.
        RestartRequiredError: Milvus stopped answering.
    """
    kafka.require_broker(settings, [Topics.of(settings).retriever_releases])
    live = releases.read(settings).live
    with closing(Milvus(settings)) as milvus:
        wanted = plan.target(milvus.builds(), live.version if live else None)
        if wanted is None:
            raise InputError(
                "The live release has no collection yet. The index worker (`retrail worker "
                "index`) builds it with its current settings."
            )
        successor = secrets.token_hex(4)
        milvus.succeed(wanted, successor)
    return collection_name(settings.retriever, wanted.version, successor)
