"""The exceptions that Retrail raises on purpose.

::

    RetrailError                   the message names the fault and the remedy; exit status 1
    ├── ConfigurationError         a setting is missing, malformed or contradicts another
    ├── InputError                 a file that the user named is unreadable or malformed
    ├── BrokerUnavailableError     Kafka does not answer (exit 69)
    ├── DeliveryError              Kafka did not acknowledge a record
    ├── TopicMismatchError         a topic is missing, or has other partitions or settings
    ├── InvalidRecordError         a record on a topic does not satisfy its contract
    ├── MilvusUnavailableError     Milvus does not answer (exit 69)
    ├── NoIndexError               nothing can be searched: no release has been built
    ├── NoTenantsError             an index cannot be limited to a tenant
    ├── ModelError                 a model cannot be loaded, or is not the one that a record names
    │   └── RegistryError          the registry's storage does not answer or refuses (exit 69)
    └── RestartRequiredError       a worker cannot go on; a restart is the remedy (exit 75)

Errors of one package only are in its own ``errors`` module and derive from these.
"""

from pathlib import Path
from typing import Literal

EXIT_CANNOT_GO_ON = 75
"""Exit status of a worker for which a restart is the remedy (``EX_TEMPFAIL``, sysexits.h)."""

EXIT_UNAVAILABLE = 69
"""Exit status of a process whose Kafka, Milvus or registry does not answer (``EX_UNAVAILABLE``)."""

EXIT_INTERRUPTED = 130
"""Exit status of a command that a signal ended."""


class RetrailError(Exception):
    """Base of all errors that are shown without a traceback.

    Attributes:
        topic, partition, version, collection, path: what the error is about, where that is known
            (``version`` of a release, ``collection`` of Milvus, ``path`` of a file or a model).
    """

    exit_status: int = 1

    def __init__(
        self,
        message: str = "",
        *,
        topic: str | None = None,
        partition: int | None = None,
        version: int | None = None,
        collection: str | None = None,
        path: str | Path | None = None,
    ) -> None:
        super().__init__(message)
        self.topic = topic
        self.partition = partition
        self.version = version
        self.collection = collection
        self.path = path


class ConfigurationError(RetrailError):
    """A setting is missing, malformed or contradicts another."""


class InputError(RetrailError):
    """A file that the user named cannot be read; the message names file and line."""


class BrokerUnavailableError(RetrailError):
    """Kafka does not answer at the configured bootstrap servers."""

    exit_status = EXIT_UNAVAILABLE


class DeliveryError(RetrailError):
    """Kafka did not acknowledge a record: it may or may not be on the topic."""


class TopicMismatchError(RetrailError):
    """A topic does not exist, or differs from its specification."""


InvalidReason = Literal[
    "malformed_json",
    "unknown_type",
    "missing_field",
    "invalid_field",
    "unsupported_version",
    "wrong_key",
    "too_large",
]


class InvalidRecordError(RetrailError):
    """A record does not satisfy its contract.

    Attributes:
        reason: the label of metrics.
        key: the id in the record, where there is one.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: InvalidReason = "invalid_field",
        key: str | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.key = key


class MilvusUnavailableError(RetrailError):
    """Milvus does not answer at the configured URI."""

    exit_status = EXIT_UNAVAILABLE


class NoIndexError(RetrailError):
    """The alias points nowhere: no release has been built for this retriever.

    Attributes:
        progress: how far the first build is, "12% of all documents indexed"; empty without one.
    """

    def __init__(self, message: str = "", *, progress: str = "") -> None:
        super().__init__(message)
        self.progress = progress


class NoTenantsError(RetrailError):
    """The collection was built before its rows had tenants, so no search of it can be limited."""


class ModelError(RetrailError):
    """A model cannot be loaded, or its digest is not the one that a record names."""


class RegistryError(ModelError):
    """The storage of the registry does not answer, refuses, or has no such bucket."""

    exit_status = EXIT_UNAVAILABLE


class RestartRequiredError(RetrailError):
    """A worker lost a send, its assignment or an offset; a restart is the remedy."""

    exit_status = EXIT_CANNOT_GO_ON
