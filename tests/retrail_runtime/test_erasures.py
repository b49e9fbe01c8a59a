"""The erasures that a process knows, from a topic that cannot always be read."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from retrail_runtime import erasures as module
from retrail_runtime.erasures import ErasureLog
from retrail_runtime.kafka import Record
from schemas.erasures import Erasure, encode, hashed, key_check
from schemas.errors import BrokerUnavailableError, ConfigurationError
from schemas.settings import Settings

KEY = "a key of 16 characters"


def record(offset: int, key: str = KEY) -> Record:
    made = Erasure(
        erasure_id=f"{offset:032x}",
        kind="agent",
        subject=hashed(key.encode(), "agent", f"agent-{offset}"),
        key_check=key_check(key.encode()),
        ends=(),
        erased_at=datetime.now(UTC),
    )
    return Record("erasures", 0, offset, 0, *encode(made))


class Topic:
    """A topic in memory; reading it fails after some records."""

    def __init__(self, *records: Record) -> None:
        self.records = records
        self.fails_after: int | None = None

    def read(self, _: Any, __: str, start: dict[int, int]) -> Iterator[Record]:
        for count, one in enumerate(self.records[start[0] :]):
            if count == self.fails_after:
                raise BrokerUnavailableError("Kafka does not answer.")
            yield one


def known(monkeypatch: pytest.MonkeyPatch, topic: Topic) -> ErasureLog:
    monkeypatch.setattr(module, "read_to_end", topic.read)
    return ErasureLog(Settings(erase_key=SecretStr(KEY)))


def test_no_erasure_is_lost_when_reading_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = Topic(record(0), record(1), record(2))
    topic.fails_after = 2
    log = known(monkeypatch, topic)
    with pytest.raises(BrokerUnavailableError):
        log.refresh()
    topic.fails_after = None
    assert len(log.refresh()) == 3
    assert len(log.refresh()) == 3


def test_another_key_is_refused_at_every_read(monkeypatch: pytest.MonkeyPatch) -> None:
    log = known(monkeypatch, Topic(record(0, "another key of an installation")))
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="RETRAIL_ERASE_KEY"):
            log.refresh()
