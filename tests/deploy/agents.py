"""Agents that work through ``retrail serve``; as a program, the judging server on a port."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import httpx

from serving.problems import TRAJECTORY_HEADER
from tests.streams.chat_server import ChatServer


def verdict(body: Any, _: int) -> str:
    """The answer of the judging server."""
    return "NOT_RELEVANT" if "useless" in body["messages"][-1]["content"] else "RELEVANT"


class Agents:
    """Agents that search, open, reason and end their tasks through ``retrail serve``.

    Attributes:
        answered: calls that were answered, by operation.
    """

    def __init__(
        self, url: str, token: str, documents: Mapping[str, str], threads: int = 2
    ) -> None:
        """Nothing is searched before the block begins.

        Args:
            documents: texts by id, for which the agents search.
        """
        self.answered: Counter[str] = Counter()
        self._documents = documents
        self._http = httpx.Client(
            base_url=f"{url}/v1/",
            headers={"Authorization": f"Bearer {token}", "Retrail-Model": "model-7b"},
            timeout=60,
        )
        self._stopping, self._lock = threading.Event(), threading.Lock()
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._work, args=(number,)) for number in range(threads)
        ]

    def __enter__(self) -> "Agents":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Complete the running tasks."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(180)
        assert not any(thread.is_alive() for thread in self._threads)
        assert not self._failures, self._failures

    def _work(self, thread: int) -> None:
        try:
            for task in range(thread, 1_000_000, len(self._threads)):
                if self._stopping.is_set():
                    return
                self._task(task)
        except BaseException as error:
            self._failures.append(error)

    def _task(self, task: int) -> None:
        trajectory, reasoning = None, None
        names = list(self._documents)
        for turn in range(3):
            wanted = names[(task * 7 + turn * 13) % len(names)]
            word, *_, number = self._documents[wanted].split()
            query = {"query": f"{word} {number} {task % 40}", "k": 8, "reasoning": reasoning}
            found = self._call("search", trajectory, **query)
            trajectory, hits = found["trajectory_id"], [hit["doc_id"] for hit in found["hits"]]
            helps = wanted in hits and (task + turn) % 4 > 0
            opened = wanted if helps else hits[(task + turn) % 3]
            self._call("open", trajectory, doc_id=opened)
            found_it = "useful" if opened == wanted else "useless"
            reasoning = f"In task {task}, turn {turn}, it was {found_it}." + " Go on." * (task % 5)
            self._stopping.wait(0.4)
        self._call(f"trajectories/{trajectory}/end", None, outcome="correct", reasoning=reasoning)

    def _call(self, path: str, trajectory: str | None, **body: object) -> Any:
        """Repeats a call that was answered with 503, as agents should."""
        headers = {TRAJECTORY_HEADER: trajectory} if trajectory else {}
        while True:
            answer = self._http.post(path, json=body, headers=headers)
            if answer.status_code == 200:
                with self._lock:
                    self.answered[path.partition("/")[0]] += 1
                return answer.json()
            assert answer.status_code == 503, answer.text
            time.sleep(0.5)


if __name__ == "__main__":
    ChatServer(verdict, int(sys.argv[1]))
    threading.Event().wait()
