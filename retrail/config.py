"""Configuration of the client: arguments, else ``RETRAIL_…`` variables, else defaults.

The variables are those of ``schemas.settings``, which the client does not import.
"""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from retrail.errors import ConfigurationError
from retrail.wire import MAX_EVENT_BYTES

DEFAULT_BOOTSTRAP = "127.0.0.1:9092"

FIXED: Mapping[str, Any] = {
    # The partitioner of Java and aiokafka: records with one key are on the same partition number.
    "partitioner": "murmur2_random",
    "enable.idempotence": True,
    "acks": "all",
    # A topic that a producer creates has the broker's defaults instead of the contract's.
    "allow.auto.create.topics": False,
}
"""Properties that the guarantees need; ``kafka={…}`` cannot change them."""

_FILES = {
    "RETRAIL_KAFKA_SSL_CAFILE": "ssl.ca.location",
    "RETRAIL_KAFKA_SSL_CERTFILE": "ssl.certificate.location",
    "RETRAIL_KAFKA_SSL_KEYFILE": "ssl.key.location",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the queue of events that the broker has not acknowledged.

    Attributes:
        events: number of events.
        bytes: total size of their JSON values; at least 4 MiB, so that the largest event fits.

    Raises:
        ConfigurationError: a bound is too small.

    Example:
        >>> Limits(events=10_000).bytes
        67108864
    """

    events: int = 100_000
    bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        if self.events < 1 or self.bytes < MAX_EVENT_BYTES:
            raise ConfigurationError(
                f"Limits.events is at least 1, Limits.bytes at least {MAX_EVENT_BYTES}."
            )


@dataclass(frozen=True, slots=True)
class Timeout:
    """How long the client waits, in seconds.

    Attributes:
        block: of a call for space in a full queue; 0: do not wait.
        delivery: for the acknowledgement of an event before it counts as failed.
        close: of :meth:`Publisher.close` and at exit for deliveries.

    Raises:
        ConfigurationError: a value is negative or not finite.

    Example:
        >>> Timeout(block=0.0).delivery
        300.0
    """

    block: float = 1.0
    delivery: float = 300.0
    close: float = 10.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(seconds) and seconds >= 0 for seconds in astuple(self)):
            raise ConfigurationError("The seconds of a Timeout are finite and not negative.")


DEFAULT_LIMITS = Limits()
DEFAULT_TIMEOUT = Timeout()


def environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The ``RETRAIL_…`` variables, which override those of the file at ``RETRAIL_ENV_FILE``.

    Raises:
        ConfigurationError: that file cannot be read.
    """
    found = os.environ if environ is None else environ
    path = found.get("RETRAIL_ENV_FILE")
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines() if path else []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"RETRAIL_ENV_FILE={path} cannot be read: {error}") from error
    return _assignments(lines) | {k: v for k, v in found.items() if k.startswith("RETRAIL_")}


def secret(environ: Mapping[str, str], name: str) -> str:
    """A variable, or the content of the file that ``<name>_FILE`` names; empty without both.

    Raises:
        ConfigurationError: that file cannot be read.
    """
    path = environ.get(f"{name}_FILE")
    if environ.get(name) or not path:
        return environ.get(name, "")
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{name}_FILE={path} cannot be read: {error}") from error


def _assignments(lines: list[str]) -> dict[str, str]:
    """``NAME=value`` lines of a ``.env`` file, with or without ``export`` and quotes."""
    result = {}
    for line in lines:
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and name.strip().startswith("RETRAIL_"):
            result[name.strip()] = _unquoted(value.strip())
    return result


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return re.sub(rf"\\([\\{value[0]}])", r"\1", value[1:-1])
    return value


def kafka_config(
    bootstrap: str | None, extra: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, Any]:
    """librdkafka configuration that reaches the brokers.

    Args:
        bootstrap: ``host:port`` list, or nothing for ``RETRAIL_KAFKA_BOOTSTRAP``.
        extra: librdkafka properties that override ours, such as security ones.
        environ: see :func:`environment`.

    Raises:
        ConfigurationError: ``extra`` has a property of :data:`FIXED`, or a secret's file cannot be
            read.

    >>> kafka_config("k1:9092", {"client.id": "me"}, {})["bootstrap.servers"]
    'k1:9092'
    """
    if taken := sorted(FIXED.keys() & extra.keys()):
        raise ConfigurationError(f"{', '.join(taken)} cannot be set: Retrail's guarantees need it.")
    protocol = environ.get("RETRAIL_KAFKA_SECURITY_PROTOCOL") or "PLAINTEXT"
    config: dict[str, Any] = {
        "bootstrap.servers": bootstrap
        or environ.get("RETRAIL_KAFKA_BOOTSTRAP")
        or DEFAULT_BOOTSTRAP,
        "security.protocol": protocol,
    }
    if protocol.startswith("SASL"):
        config |= _sasl(environ)
    config |= {option: environ[name] for name, option in _FILES.items() if environ.get(name)}
    if password := secret(environ, "RETRAIL_KAFKA_SSL_KEYPASSWORD"):
        config["ssl.key.password"] = password
    return config | dict(extra)


def _sasl(environ: Mapping[str, str]) -> dict[str, Any]:
    user = environ.get("RETRAIL_KAFKA_SASL_USERNAME", "")
    password = secret(environ, "RETRAIL_KAFKA_SASL_PASSWORD")
    mechanism = environ.get("RETRAIL_KAFKA_SASL_MECHANISM") or "PLAIN"
    config: dict[str, Any] = {"sasl.mechanism": mechanism}
    if mechanism != "OAUTHBEARER":
        return config | {"sasl.username": user, "sasl.password": password}
    config |= {
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": user,
        "sasl.oauthbearer.client.secret": password,
        "sasl.oauthbearer.token.endpoint.url": environ.get("RETRAIL_KAFKA_SASL_TOKEN_URL", ""),
    }
    if scope := environ.get("RETRAIL_KAFKA_SASL_SCOPE"):
        config["sasl.oauthbearer.scope"] = scope
    return config


def topic_name(
    prefix: str | None, environ: Mapping[str, str], topic: str = "trajectory-events"
) -> str:
    """Name of a topic under a prefix, or under ``RETRAIL_TOPIC_PREFIX``.

    >>> topic_name("team_a_", {})
    'team_a_trajectory-events'
    """
    found = environ.get("RETRAIL_TOPIC_PREFIX", "") if prefix is None else prefix
    return f"{found}{topic}"
