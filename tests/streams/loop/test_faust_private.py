"""Another Faust or aiokafka is refused before anything starts."""

import faust
import pytest
from aiokafka import codec
from aiokafka.consumer.group_coordinator import GroupCoordinator

from schemas.errors import ConfigurationError
from streams.loop.faust_private import require_codecs, require_private_names


def test_the_installed_versions_have_every_private_name():
    require_private_names()


@pytest.mark.parametrize(
    ("owner", "name"),
    [(faust.App, "_new_transport"), (GroupCoordinator, "fetch_committed_offsets")],
)
def test_a_missing_name_is_told_with_the_versions_to_install(monkeypatch, owner, name):
    monkeypatch.delattr(owner, name)
    with pytest.raises(ConfigurationError, match=rf"\.{name},.*faust-streaming==.*aiokafka=="):
        require_private_names()


def test_every_codec_can_be_read():
    require_codecs()


def test_a_codec_that_cannot_be_read_is_named_before_anything_starts(monkeypatch):
    """Case 12."""
    monkeypatch.setattr(codec, "cramjam", None)
    with pytest.raises(ConfigurationError, match=r"snappy, lz4, zstd.*pip install 'aiokafka\["):
        require_codecs()
