"""Every way to authenticate, with Faust's client on a secured broker."""

import asyncio
import secrets
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from schemas.errors import ConfigurationError
from schemas.settings import Settings
from streams.loop.credentials import Tokens, credentials
from tests.servers.secured_kafka import PLAIN_USER, SecuredKafka


@pytest.fixture(scope="module")
def broker(secured: SecuredKafka) -> SecuredKafka:
    secured.make_users(["faust"])
    return secured


async def connect(settings: Settings) -> None:
    """A producer that has received the brokers' metadata."""
    options: dict[str, Any] = dict(credentials_to_aiokafka_auth(credentials(settings)))
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, **options)
    try:
        await producer.start()
    finally:
        await producer.stop()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN", "OAUTHBEARER", "mTLS"])
def test_ways_in(mechanism: str, broker: SecuredKafka) -> None:

    user = {"SCRAM-SHA-512": "faust", "PLAIN": PLAIN_USER}.get(mechanism, "somebody")
    access = broker.mtls(user) if mechanism == "mTLS" else broker.sasl(user, mechanism)
    asyncio.run(connect(access.of(Settings(topic_prefix=f"t{secrets.token_hex(4)}_"))))


def test_one_token_serves_many_connections(broker: SecuredKafka) -> None:

    tokens = Tokens(broker.sasl("many", "OAUTHBEARER").of(Settings()))
    first = asyncio.run(tokens.token())
    assert first
    assert asyncio.run(tokens.token()) == first


def test_a_client_that_gets_no_token(broker: SecuredKafka) -> None:

    settings = broker.sasl("many", "OAUTHBEARER").of(Settings(), kafka_sasl_password="wrong")
    with pytest.raises(ConfigurationError, match=r"401.*RETRAIL_KAFKA_SASL_TOKEN_URL"):
        asyncio.run(Tokens(settings).token())


def test_without_security() -> None:
    assert credentials(Settings()) is None


def test_a_wrong_password_of_the_key(broker: SecuredKafka) -> None:
    settings = broker.mtls("somebody").of(Settings(), kafka_ssl_keypassword="wrong")
    with pytest.raises(ConfigurationError, match="_KEYPASSWORD"):
        credentials(settings)
