"""Follows the topic ``erasures``: what must not be used any more."""

import threading
import time

import structlog

from retrail_runtime.kafka import read_to_end
from retrail_runtime.metrics import INVALID_RECORDS
from schemas import erasures
from schemas.erasures import Erasure, Erasures
from schemas.errors import ConfigurationError, InvalidRecordError, RetrailError
from schemas.settings import Settings
from schemas.topics import Topics

log = structlog.get_logger(__name__)

CHECK_SECONDS = 5.0
"""Between two reads of the topic."""


class ErasureLog:
    """The erasures so far, kept up to date; for any thread."""

    def __init__(self, settings: Settings) -> None:
        """Reads nothing yet."""
        self._settings = settings
        self._topic = Topics.of(settings).erasures
        key = settings.erase_key
        self._key = key.get_secret_value().encode() if key else None
        self._next = 0
        self._lock = threading.Lock()
        self._refreshed_at = time.monotonic()
        self._failure: ConfigurationError | None = None
        self._known = Erasures()

    def refresh(self) -> Erasures:
        """The erasures as of now.

        Raises:
            BrokerUnavailableError, TopicMismatchError: from Kafka.
            ConfigurationError: a right is missing, or the key is not that of the records.
        """
        with self._lock:
            found: list[Erasure] = []
            following = self._next
            for record in read_to_end(self._settings, self._topic, {0: self._next}):
                following = record.offset + 1
                try:
                    found.append(erasures.decode(record.value))
                except InvalidRecordError as error:
                    INVALID_RECORDS.labels(stage="erasures").inc()
                    log.error("record refused", topic=self._topic, reason=str(error))
            if found:
                self._known = Erasures(self._key, [*self._known.known, *found])
            self._next = following
            self._refreshed_at = time.monotonic()
            return self._known

    def current(self) -> Erasures:
        """The erasures as of a few seconds ago; never waits for Kafka.

        Raises:
            ConfigurationError: as :meth:`refresh`, from an earlier read.
        """
        if self._failure is not None:
            raise self._failure
        if time.monotonic() - self._refreshed_at >= CHECK_SECONDS:
            self._refreshed_at = time.monotonic()
            threading.Thread(target=self._refresh_quietly, name="erasures", daemon=True).start()
        return self._known

    def _refresh_quietly(self) -> None:
        try:
            self.refresh()
        except ConfigurationError as error:
            self._failure = error
        except RetrailError as error:
            log.warning("erasures cannot be read", error=str(error))
