"""The listening socket, and the secret that replicas share."""

import socket
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr, ValidationError

from schemas.errors import ConfigurationError
from schemas.settings import Settings
from serving.running import address, listen, publisher, secret


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


def hidden(text: str) -> str:
    """A redaction hook, by its import path."""
    return text.replace("Ann", "…")


def test_text_policies_are_settings_and_a_hook_is_imported() -> None:
    with publisher(Settings(serve_query_text=f"{__name__}:hidden")) as found:
        assert found._policies.query is hidden
        assert found._policies.reasoning == found._policies.answer == "send"
    with publisher(Settings(serve_reasoning_text="withhold")) as found:
        assert found._policies.reasoning == found._policies.answer == "withhold"
    for wrong in (f"{__name__}:absent", "absent.module:hidden"):
        with pytest.raises(ConfigurationError, match=r"RETRAIL_SERVE_QUERY_TEXT=.*be imported"):
            publisher(Settings(serve_query_text=wrong))
    with pytest.raises(ConfigurationError, match="no function"):
        publisher(Settings(serve_reasoning_text="os:sep"))
    with pytest.raises(ValidationError):
        Settings(serve_query_text="hide")


def test_answers_are_not_held_back_for_acknowledgements() -> None:
    with listen("127.0.0.1", 0, Settings()) as listener:
        # What asyncio asks before it sets TCP_NODELAY.
        assert listener.proto == socket.IPPROTO_TCP


def test_beyond_the_loopback_a_token_is_needed_or_waived() -> None:
    with pytest.raises(ConfigurationError, match="RETRAIL_SERVE_TOKEN"):
        listen("0.0.0.0", 0, Settings())
    listen("0.0.0.0", 0, Settings(), without_token=True).close()
    listen("0.0.0.0", 0, Settings(serve_token=SecretStr("x"))).close()


def test_the_secret_is_the_setting_else_the_file_else_drawn(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    with structlog.testing.capture_logs() as lines:
        assert secret(settings) != secret(settings)
    assert len(lines) == 2
    assert all("RETRAIL_SERVE_SECRET" in line["event"] for line in lines)
    (tmp_path / "serve-secret").write_text("of the data directory\n")
    assert secret(settings) == b"of the data directory"
    named = tmp_path / "named"
    named.write_text("of the file that is named\n")
    settings = settings.model_copy(update={"serve_secret_file": named})
    assert secret(settings) == b"of the file that is named"
    of_setting = settings.model_copy(update={"serve_secret": SecretStr("of the setting")})
    assert secret(of_setting) == b"of the setting"
    named.write_text("short")
    with pytest.raises(ConfigurationError, match=r"5 bytes; at least 16"):
        secret(settings)
    named.unlink()
    with pytest.raises(ConfigurationError, match=r"RETRAIL_SERVE_SECRET_FILE=.*cannot be read"):
        secret(settings)
