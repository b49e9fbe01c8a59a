"""The listening socket."""

import socket

import pytest
from pydantic import SecretStr

from schemas.errors import ConfigurationError
from schemas.settings import Settings
from serving.running import address, listen


@pytest.mark.parametrize(
    ("host", "wanted"), [("127.0.0.1", "http://127.0.0.1:"), ("::1", "http://[::1]:")]
)
def test_its_address_names_the_port(host: str, wanted: str) -> None:
    try:
        with listen(host, 0, Settings()) as listener:
            assert address(listener).startswith(wanted)
            assert not address(listener).endswith(":0")
    except ConfigurationError:
        if ":" in host:
            pytest.skip("this machine has no IPv6")
        raise


def test_answers_are_not_held_back_for_acknowledgements() -> None:
    with listen("127.0.0.1", 0, Settings()) as listener:
        # What asyncio asks before it sets TCP_NODELAY.
        assert listener.proto == socket.IPPROTO_TCP


def test_beyond_the_loopback_a_token_is_needed_or_waived() -> None:
    with pytest.raises(ConfigurationError, match="RETRAIL_SERVE_TOKEN"):
        listen("0.0.0.0", 0, Settings())
    listen("0.0.0.0", 0, Settings(), without_token=True).close()
    listen("0.0.0.0", 0, Settings(serve_token=SecretStr("x"))).close()
