"""Another Faust or aiokafka is refused before anything starts."""

import pytest
from aiokafka import codec

from schemas.errors import ConfigurationError
from streams.loop import faust_private
from streams.loop.faust_private import require_codecs, require_versions


def test_the_installed_versions_are_the_supported_ones():
    require_versions()


@pytest.mark.parametrize("package", ["faust-streaming", "aiokafka"])
def test_another_version_is_named_with_the_versions_to_install(monkeypatch, package):
    others = faust_private.SUPPORTED | {package: "9.9.9"}
    monkeypatch.setattr(faust_private, "version", others.get)
    with pytest.raises(ConfigurationError, match=r"9\.9\.9.*faust-streaming==.*aiokafka=="):
        require_versions()


def test_every_codec_can_be_read():
    require_codecs()


def test_a_codec_that_cannot_be_read_is_named_before_anything_starts(monkeypatch):
    """Case 12."""
    monkeypatch.setattr(codec, "cramjam", None)
    with pytest.raises(ConfigurationError, match=r"snappy, lz4, zstd.*pip install 'aiokafka\["):
        require_codecs()
