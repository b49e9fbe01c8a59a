"""Logs of every format through `retrail publish`, judge and miner, to exact pairs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from retrail_cli import main
from schemas.pairs import LabelledPair
from streams.importing.importer import EVENTS, Importer, readers
from streams.importing.offline import mine
from tests.streams.fleet import Fleet, installation
from tests.streams.importing import test_anthropic as anthropic
from tests.streams.importing import test_atif as atif
from tests.streams.importing import test_lrat as lrat
from tests.streams.importing import test_openai as openai
from tests.streams.importing import test_react as react
from tests.streams.importing.logs import HELPED, NEED, PLAN, REJECTED, short, written
from tests.streams.spans.made import NEED_TRACE, request
from tests.streams.topics import pairs_of


def events() -> list[dict[str, object]]:
    """The need's events, as on the topic."""

    def hits(*doc_ids: str) -> list[dict[str, object]]:
        return [{"doc_id": doc_id, "rank": rank} for rank, doc_id in enumerate(doc_ids, 1)]

    steps = [
        {"type": "reasoning", "text": PLAN},
        {"type": "search", "query": "harbour lamp year", "hits": hits("d1", "d2", "d3")},
        {"type": "browse", "doc_id": "d1"},
        {"type": "reasoning", "text": REJECTED, "about": "d1"},
        {"type": "search", "query": "harbour lamp lit", "hits": hits("d4", "d2")},
        {"type": "browse", "doc_id": "d2"},
        {"type": "reasoning", "text": HELPED, "about": "d2"},
        {"type": "answer", "text": "1871"},
        {"type": "end"},
    ]
    envelope = {
        "trajectory_id": "events",
        "occurred_at": "2026-11-01T00:00:00Z",
        "agent": {"name": "a", "model": "m"},
    }
    return [
        envelope | {"event_id": f"events-{seq}", "seq": seq} | step
        for seq, step in enumerate(steps)
    ]


LOGS = {
    "events": events(),
    "lrat": [lrat.NEED_RUN],
    "openai": [{"messages": openai.CHAT}],
    "anthropic": [{"messages": anthropic.MESSAGES}],
    "react": [{"messages": react.CHAT}],
    "atif": [atif.trajectory()],
    "otlp": [request(span) for span in reversed(NEED_TRACE)],
}


@dataclass
class Published:
    """What was done with the file of each format."""

    offline: dict[str, list[LabelledPair]]
    statuses: dict[str, int]
    on_topic: list[LabelledPair]


@pytest.fixture(scope="module")
def published(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """All formats on one installation, mined by one judge and one miner."""
    folder = tmp_path_factory.mktemp("formats")
    settings = installation(kafka, folder)
    files = {name: written(folder, *logs, name=f"{name}.jsonl") for name, logs in LOGS.items()}
    offline = {name: [*mine(Importer().read([path]), settings)] for name, path in files.items()}
    fleet = Fleet(settings, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRAIL_KAFKA_BOOTSTRAP", kafka)
        patch.setenv("RETRAIL_TOPIC_PREFIX", settings.topic_prefix)
        statuses = {name: _publish(path) for name, path in files.items()}
    try:
        fleet.start("judge")
        fleet.start("mine")
        fleet.until_pairs({pair.pair_id: pair for pairs in offline.values() for pair in pairs})
        yield Published(offline, statuses, pairs_of(settings))
    finally:
        fleet.kill_all()


def _publish(path: Path) -> int:
    """Publish a file twice, which is once."""
    report = path.with_suffix(".report")
    statuses = {main(["publish", str(path), "--report", str(report)]) for _ in range(2)}
    [status] = statuses
    assert json.loads(report.read_text())["exit_status"] == status
    return status


def test_every_format_is_published() -> None:
    assert set(LOGS) == {EVENTS, *readers()}


@pytest.mark.parametrize("name", LOGS)
def test_a_published_log_gives_the_pairs_of_its_need(name: str, published: Published) -> None:
    offline = published.offline[name]
    own = {pair.trajectory_id for pair in offline}
    found = [pair for pair in published.on_topic if pair.trajectory_id in own]
    assert [*map(short, found)] == (react.PAIRS if name == "react" else NEED)
    assert [pair.content() for pair in found] == offline
    assert published.statuses[name] == 0
