"""An agent behind `retrail serve` with our callback handler, whose spans arrive as traces, too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from serving.otlp import PATH
from serving.retriever import Hit
from tests.agents.servers import running_servers
from tests.serving.fakes import FakeRetriever
from tests.streams.fleet import Fleet
from tests.streams.spans.agents import DOCUMENTS, RESULTS
from tests.streams.spans.recordings import essence
from tests.streams.spans.test_on_kafka import start
from tests.streams.topics import pairs_of
from tests.waiting import eventually


class Lamps(FakeRetriever):
    """Gives the hits that the agent's own search gives."""

    def _hits(self, query: str) -> list[Hit]:
        ranked = enumerate(RESULTS[query], 1)
        return [Hit(doc_id, rank, 1 / rank, doc_id, self.texts[doc_id]) for rank, doc_id in ranked]


def pairs_of_served(
    kafka: str, folder: Path, run: Callable[[str], list[str]], traces: int = 1
) -> list[tuple[Any, ...]]:
    """What is learned from the agent.

    Args:
        run: runs the agent on the URL of `retrail serve`; returns spans, one request a line.
        traces: in these spans.
    """
    with running_servers(kafka, folder, Lamps(DOCUMENTS)) as servers:
        fleet = Fleet(servers.settings, folder)
        try:
            worker = start(fleet)
            for role in ("judge", "mine"):
                fleet.start(role)
            for line in run(servers.http_url):
                headers = {"content-type": "application/json"}
                answer = httpx.post(servers.http_url + PATH, content=line, headers=headers)
                assert answer.status_code == 200
            eventually(lambda: worker.working, 40, "the first span")
            left_out = "retrail_otlp_not_mapped_total"
            eventually(lambda: worker.sample(left_out, reason="served") == 6 * traces, 60, "traces")
            assert worker.sample("retrail_otlp_trajectories_total") == 0
            eventually(lambda: pairs_of(servers.settings), 60, "the pairs")
            fleet.finish()
            return essence(pairs_of(servers.settings))
        finally:
            fleet.kill_all()
