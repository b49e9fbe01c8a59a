"""The exceptions that Retrail raises on purpose.

::

    RetrailError                   the message says what happened and what to do; exit status 1
    ├── ConfigurationError         a setting is missing, malformed or contradicts another
    ├── BrokerUnavailableError     Kafka does not answer
    ├── MilvusUnavailableError     Milvus does not answer
    ├── TopicMismatchError         a topic exists with other partitions, retention or compaction
    ├── InputError                 a file that the user named is unreadable or malformed
    ├── InvalidRecordError         a record on a topic is not what the topic's contract says
    ├── ModelError                 a model cannot be loaded, or is not the one that a record names
    │   └── RegistryError          its object storage does not answer or refuses (exit 75)
    ├── NoIndexError               nothing can be searched: no release has been built
    └── RestartRequiredError       a worker lost what it needs and wants a restart (exit 75)
"""

EXIT_CANNOT_GO_ON = 75
"""Exit status of a worker that wants to be restarted (``EX_TEMPFAIL`` of sysexits.h)."""


class RetrailError(Exception):
    """Base of all errors that are shown to a person without a traceback."""

    exit_status: int = 1


class ConfigurationError(RetrailError):
    """A setting is missing, malformed or contradicts another."""


class BrokerUnavailableError(RetrailError):
    """Kafka does not answer at the configured bootstrap servers."""


class MilvusUnavailableError(RetrailError):
    """Milvus does not answer at the configured URI."""


class TopicMismatchError(RetrailError):
    """A topic exists, but not as the contract wants it."""


class InputError(RetrailError):
    """A file that the user named cannot be read; the message names file and line."""


class InvalidRecordError(RetrailError):
    """A record on a topic does not satisfy the topic's contract; the message names the field.

    Attributes:
        reason: a metric label, for instance ``malformed_json`` or ``missing_field``.
    """

    def __init__(self, message: str, reason: str = "invalid_field") -> None:
        super().__init__(message)
        self.reason = reason


class ModelError(RetrailError):
    """A model cannot be loaded, or its digest is not the one that a record names."""


class RegistryError(ModelError):
    """The object storage of the registry does not answer, refuses, or has no such bucket."""

    exit_status = EXIT_CANNOT_GO_ON


class NoIndexError(RetrailError):
    """The alias points nowhere: no release has been built for this retriever."""


class RestartRequiredError(RetrailError):
    """A worker lost what it needs (a send, its assignment, an offset); a restart is the remedy."""

    exit_status = EXIT_CANNOT_GO_ON
