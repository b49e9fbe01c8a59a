"""Kafka security settings as Faust credentials."""

import asyncio
import ssl
import time
from typing import Any

import faust
import httpx
from aiokafka.abc import AbstractTokenProvider

from schemas.errors import ConfigurationError
from schemas.settings import Settings

TOKEN_TIMEOUT = 10.0
"""Seconds for the answer of the token endpoint."""

KEPT_SHARE = 0.8
"""Share of a token's lifetime after which the next connection gets a new one, as in librdkafka."""


def credentials(settings: Settings) -> Any:
    """Kafka security settings as Faust credentials; None without security.

    Raises:
        ConfigurationError: a certificate or key cannot be used.
    """
    protocol = settings.kafka_security_protocol
    context = _ssl_context(settings) if protocol.endswith("SSL") else None
    if not protocol.startswith("SASL"):
        return faust.SSLCredentials(context) if context else None
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        return faust.OAuthCredentials(oauth_cb=Tokens(settings), ssl_context=context)
    return faust.SASLCredentials(
        username=settings.kafka_sasl_username or "",
        password=_secret(settings.kafka_sasl_password),
        mechanism=settings.kafka_sasl_mechanism,
        ssl_context=context,
    )


class Tokens(AbstractTokenProvider):  # type: ignore[misc]
    """Tokens of the grant ``client_credentials`` (RFC 6749, section 4.4); one serves many
    connections."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.kafka_sasl_token_url or ""
        self._client = settings.kafka_sasl_username or "", _secret(settings.kafka_sasl_password)
        self._form = {"grant_type": "client_credentials"}
        if settings.kafka_sasl_scope:
            self._form["scope"] = settings.kafka_sasl_scope
        self._token, self._renew_at = "", 0.0

    async def token(self) -> str:
        """A valid token; aiokafka calls this for each connection, from several threads.

        Raises:
            ConfigurationError: the token endpoint does not grant one.
        """
        if time.monotonic() >= self._renew_at:
            await asyncio.to_thread(self._renew)
        return self._token

    def _renew(self) -> None:
        began = time.monotonic()
        try:
            answer = httpx.post(
                self._url,
                data=self._form,
                auth=self._client,
                timeout=TOKEN_TIMEOUT,
                verify=ssl.create_default_context(),
            )
            granted = answer.raise_for_status().json()
            self._token = str(granted["access_token"])
            lifetime = float(granted.get("expires_in", 0))
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise ConfigurationError(
                f"The token endpoint {self._url} gave no token: {error}. Correct "
                "RETRAIL_KAFKA_SASL_TOKEN_URL, and the client id and secret in "
                "RETRAIL_KAFKA_SASL_USERNAME and _PASSWORD."
            ) from error
        self._renew_at = began + KEPT_SHARE * lifetime


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile)
        if settings.kafka_ssl_certfile is not None:
            context.load_cert_chain(
                settings.kafka_ssl_certfile,
                settings.kafka_ssl_keyfile,
                # Without a password OpenSSL would ask for one on the terminal.
                _secret(settings.kafka_ssl_keypassword),
            )
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"RETRAIL_KAFKA_SSL_CAFILE, _CERTFILE, _KEYFILE or _KEYPASSWORD cannot be used: {error}"
        ) from error
    return context


def _secret(value: Any) -> str:
    return value.get_secret_value() if value else ""
