"""Why Kafka refuses a client: its own reason, the setting to correct, and rights that are missing.

librdkafka repeats a refused connection without limit, and reports the reason to a callback only.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from retrail_runtime.retry import Deadline
from schemas.errors import BrokerUnavailableError, ConfigurationError, RetrailError
from schemas.rights import Right, RoleName, rights
from schemas.settings import Settings

FIRST_SECONDS = 1.0
"""After which the reports of the first attempts to connect are read."""
LATER_SECONDS = 2.5

UNAUTHORIZED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
)

MISSING_RIGHT = (
    "Its user (RETRAIL_KAFKA_SASL_USERNAME, or the client certificate's) lacks a right: "
    "`retrail topics acls` prints those of every role, docs/security.md explains them."
)

_PROTOCOL = (
    "This listener uses another security protocol: correct RETRAIL_KAFKA_SECURITY_PROTOCOL, or the "
    "port in RETRAIL_KAFKA_BOOTSTRAP."
)
ADVICE: tuple[tuple[str, str], ...] = (
    (
        r"OAUTHBEARER token",
        "The token endpoint gave no token: correct RETRAIL_KAFKA_SASL_TOKEN_URL, and the client id "
        "and secret in RETRAIL_KAFKA_SASL_USERNAME and _PASSWORD.",
    ),
    (r"not valid in current SASL state|PLAINTEXT broker listener|wrong version number", _PROTOCOL),
    (
        r"SASL \S+ mechanism handshake failed|Unsupported SASL mechanism",
        "Set RETRAIL_KAFKA_SASL_MECHANISM to one that the broker supports.",
    ),
    (
        r"SASL authentication error|Authentication failed|invalid credentials",
        "Correct RETRAIL_KAFKA_SASL_USERNAME and RETRAIL_KAFKA_SASL_PASSWORD, or "
        "RETRAIL_KAFKA_SASL_MECHANISM if the user exists for another one only.",
    ),
    (
        r"certificate verify failed",
        "RETRAIL_KAFKA_SSL_CAFILE must have signed the broker's certificate, and the host in "
        "RETRAIL_KAFKA_BOOTSTRAP must be a name in it.",
    ),
    (
        r"alert (certificate|bad certificate|unknown ca|handshake failure)|certificate required",
        "The broker wants a client certificate that it trusts: correct RETRAIL_KAFKA_SSL_CERTFILE "
        "and RETRAIL_KAFKA_SSL_KEYFILE.",
    ),
    (r"Disconnected: .* in state (SSL_HANDSHAKE|APIVERSION_QUERY|UP)", _PROTOCOL),
)
"""Patterns of Kafka's reasons, the first that matches counts, and what to do."""

DISCONNECTED = 3
"""A broker that restarts closes connections, too; one that refuses them closes every one."""

T = TypeVar("T")


def refusal_in(reasons: Sequence[str]) -> str:
    """Why Kafka refuses a connection, and what to do; empty: nothing in ``reasons`` is a refusal.

    >>> refusal_in(["L:1/bootstrap: Connect to ipv4#L:1 failed: Connection refused"])
    ''
    >>> refusal_in(["sasl_ssl://L:1/bootstrap: SASL authentication error: no (after 1ms)"])[:34]
    'SASL authentication error: no. Cor'
    """
    for pattern, what in ADVICE:
        found = [reason for reason in reasons if re.search(pattern, reason)]
        if found and (len(found) >= DISCONNECTED or "Disconnected" not in pattern):
            return f"{_short(found[0])}. {what}"
    return ""


def message_of(error: KafkaError) -> str:
    """The text of an error, with what to do if a right is missing."""
    if error.code() in UNAUTHORIZED:
        return f"{error.str()}. {MISSING_RIGHT}"
    return error.str()


def failure(error: KafkaError, message: str, topic: str | None = None) -> RetrailError:
    """The exception for a failed request: a missing right is no unavailable broker."""
    kind = ConfigurationError if error.code() in UNAUTHORIZED else BrokerUnavailableError
    return kind(message, topic=topic)


def made(client: Callable[..., T], config: dict[str, Any], **extra: Any) -> T:
    """A client of librdkafka.

    Raises:
        ConfigurationError: a certificate or key cannot be used, or an option is missing.
    """
    try:
        return client(config, **extra)
    except KafkaException as error:
        raise ConfigurationError(_unusable(config, error.args[0].str())) from error


def _unusable(config: dict[str, Any], reason: str) -> str:
    for option, setting in _FILES.items():
        path = config.get(option)
        try:
            if path is not None:
                Path(path).read_bytes()
        except OSError as error:
            return f"{setting}={path} cannot be read: {error.strerror}."
        if f"{option} failed" in reason:
            also = " or RETRAIL_KAFKA_SSL_KEYPASSWORD" if "key" in option else ""
            return f"{setting}={path}{also} cannot be used: {reason}."
    if "token.endpoint" in reason:
        return f"OAUTHBEARER needs RETRAIL_KAFKA_SASL_TOKEN_URL: {reason}."
    return f"The settings RETRAIL_KAFKA_… cannot be used: {reason}."


_FILES = {
    "ssl.ca.location": "RETRAIL_KAFKA_SSL_CAFILE",
    "ssl.certificate.location": "RETRAIL_KAFKA_SSL_CERTFILE",
    "ssl.key.location": "RETRAIL_KAFKA_SSL_KEYFILE",
}


class Probe:
    """A client that connects once and collects what librdkafka reports meanwhile.

    Attributes:
        admin: the client, for requests after :meth:`metadata`.
    """

    def __init__(self, settings: Settings) -> None:
        """Does not connect yet.

        Raises:
            ConfigurationError: see :func:`made`.
        """
        self._settings = settings
        self._reasons = _Reasons()
        config = settings.kafka() | {"error_cb": self._heard, "log.connection.close": True}
        self.admin = made(AdminClient, config, logger=self._reasons)

    def metadata(self, timeout: float) -> Any:
        """All topics and brokers that this user may see.

        Raises:
            ConfigurationError: Kafka refuses the connection.
            BrokerUnavailableError: nothing answers within ``timeout`` seconds.
        """
        deadline, patience = Deadline(timeout), FIRST_SECONDS
        while True:
            try:
                return self.admin.list_topics(timeout=max(0.05, min(patience, deadline.remaining)))
            except KafkaException as error:
                reason = error.args[0].str()
            self.admin.poll(0.1)
            if refusal := refusal_in(self._reasons):
                raise ConfigurationError(
                    f"Kafka at {self._settings.kafka_bootstrap} refuses the connection: {refusal}"
                )
            if not deadline.remaining:
                raise BrokerUnavailableError(
                    f"Kafka does not answer at {self._settings.kafka_bootstrap} ({reason}). Start "
                    "a local stack with `retrail up`, or set RETRAIL_KAFKA_BOOTSTRAP (and "
                    "RETRAIL_KAFKA_SECURITY_PROTOCOL, if it is secured) to a running cluster."
                )
            patience = LATER_SECONDS

    def undescribed(self, topics: Iterable[str]) -> list[str]:
        """Those of the absent topics that this user may not describe; they may exist."""
        found = []
        for topic in topics:
            error = self.admin.list_topics(topic, timeout=LATER_SECONDS).topics[topic].error
            if error is not None and error.code() in UNAUTHORIZED:
                found.append(topic)
        return found

    def _heard(self, error: KafkaError) -> None:
        self._reasons.append(error.str())


class _Reasons(list[str]):
    """Reports of librdkafka, and its logger: the log has reasons that no error has."""

    def log(self, level: int, message: str, *args: object) -> None:
        """Called by confluent-kafka."""
        self.append(message % args)


def _short(reason: str) -> str:
    """A reason without the name of the thread and the duration."""
    return re.sub(r"^.*?\d/(bootstrap|\d+)\]?: | \(after .*$", "", reason).strip(" .")


def require_rights(settings: Settings, role: RoleName) -> None:
    """Fail at the start of a process if its user lacks a right that its role needs.

    Without an answer about a topic or group its rights count as given; a call fails later.

    Raises:
        ConfigurationError: it names every missing right.
    """
    admin = made(AdminClient, settings.kafka() | {"log_level": 0})
    needed = list(rights(settings, role))
    topics = [right.name for right in needed if right.resource == "topic"]
    groups = [right.name for right in needed if right.resource == "group"]
    how: Any = {"include_authorized_operations": True, "request_timeout": 10.0}
    answers = {"topic": admin.describe_topics(TopicCollection(topics), **how)}
    if groups:
        answers["group"] = admin.describe_consumer_groups(groups, **how)
    missing = [
        f"{operation} on {right.resource} {right.name}"
        for right in needed
        for operation in _missing(right, answers[right.resource][right.name])
    ]
    if missing:
        raise ConfigurationError(
            f"The Kafka user of `{role}` lacks rights: {', '.join(missing)}. {MISSING_RIGHT}"
        )


def _missing(right: Right, answer: Any) -> list[str]:
    try:
        allowed = answer.result().authorized_operations
    except KafkaException as error:
        return list(right.operations) if error.args[0].code() in UNAUTHORIZED else []
    if not allowed:
        return []
    names = {operation.name.replace("_", "") for operation in allowed}
    return [one for one in right.operations if one.upper() not in names]
