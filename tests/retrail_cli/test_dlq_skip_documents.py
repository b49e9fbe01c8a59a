"""A batch of ``documents`` that cannot be decoded stops its readers until an operator skips it."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from consumers.training.mirrors import DocumentMirror
from retrail_runtime import kafka as runtime
from schemas.documents import Document
from schemas.errors import RestartRequiredError
from schemas.settings import Settings
from schemas.topics import Topics
from tests import index_harness as harness
from tests.servers.breakable_log import BreakableLog
from tests.tiny_model import write_tiny_model


@pytest.fixture
def breakable(tmp_path: Path) -> Iterator[BreakableLog]:
    log = BreakableLog(tmp_path / "broker")
    yield log
    log.broker.stop()


@pytest.fixture
def kafka(breakable: BreakableLog) -> str:
    """Its address, for the fixture ``settings``."""
    return breakable.broker.client_address


def publish(settings: Settings, *names: str) -> None:
    """Documents in one batch of one partition."""
    producer = runtime.producer(settings, linger_ms=500)
    for name in names:
        text = Document(doc_id=name, text=f"the text of {name}").to_json()
        producer.produce(Topics.of(settings).documents, key=name, value=text, partition=0)
    assert producer.flush(30) == 0


@pytest.mark.parametrize(
    "last",
    [False, pytest.param(True, marks=pytest.mark.faults)],
    ids=["in the middle", "at the end"],
)
def test_index_and_mirror_pass_over_a_batch_that_an_operator_skips(
    last: bool,
    retrail: Any,
    breakable: BreakableLog,
    settings: Settings,
    topics: Topics,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RETRAIL_KAFKA_BOOTSTRAP", settings.kafka_bootstrap)
    monkeypatch.setenv("RETRAIL_TOPIC_PREFIX", settings.topic_prefix)
    model = write_tiny_model(tmp_path / "first", seed=1)
    small = settings.model_copy(update={"model": str(model), "index_max_tokens": 64})
    publish(settings, "a1", "a2")
    publish(settings, "b1", "b2", "b3")
    good = {"a1", "a2"}
    if not last:
        publish(settings, "c1", "c2")
        good |= {"c1", "c2"}
    breakable.flip_a_byte(topics.documents, b"the text of b1")

    def read() -> set[str]:
        return {(r.key or b"").decode() for r in runtime.read_to_end(settings, topics.documents)}

    def mirrored() -> set[str]:
        with closing(DocumentMirror(settings, topics.documents, tmp_path / "mirror")) as mirror:
            mirror.catch_up()
            return set(mirror.sample(1000, seed=0))

    def index() -> None:
        harness.run_until_it_fails(small)

    commands = {_command(reader) for reader in (read, mirrored, index)}
    assert commands == {f"dlq skip {topics.documents} 0 2"}
    assert retrail(*commands.pop().split()).status == 0
    assert read() == mirrored() == good
    with harness.working(small):
        harness.serves(small, 1)
        assert harness.hashes(small, 1).keys() == good
        publish(settings, "d1")
        assert read() == mirrored() == good | {"d1"}


def _command(reader: Callable[[], object]) -> str:
    """The command that the error of a reader names."""
    with pytest.raises(RestartRequiredError, match="cannot be decoded from offset 2") as caught:
        reader()
    found = re.search(r"`retrail (dlq skip .*)`", str(caught.value))
    assert found
    return found[1]
