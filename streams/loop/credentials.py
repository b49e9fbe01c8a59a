"""How Faust proves to the broker who it is."""

import ssl
from typing import Any

import faust

from schemas.errors import ConfigurationError
from schemas.settings import Settings


def credentials(settings: Settings) -> Any:
    """Faust's form of the security settings; None without security.

    Raises:
        ConfigurationError: a certificate or key cannot be read.
    """
    protocol = settings.kafka_security_protocol
    context = _ssl_context(settings) if protocol.endswith("SSL") else None
    if protocol.startswith("SASL"):
        password = settings.kafka_sasl_password
        return faust.SASLCredentials(
            username=settings.kafka_sasl_username or "",
            password=password.get_secret_value() if password else "",
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile)
        if settings.kafka_ssl_certfile is not None:
            context.load_cert_chain(settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"The files of RETRAIL_KAFKA_SSL_CAFILE, _CERTFILE and _KEYFILE cannot be used: {error}"
        ) from error
    return context
