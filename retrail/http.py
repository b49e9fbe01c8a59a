"""A client of ``retrail serve``: search, open documents and end trajectories over HTTP.

The server publishes each call as a trajectory event, so an agent that searches through it needs
neither Kafka nor :class:`retrail.Publisher`. The extras ``openai`` and ``langchain`` install httpx.
"""

import asyncio
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote
from weakref import WeakKeyDictionary

from retrail.config import environment, secret
from retrail.errors import ConfigurationError, ServeError

try:
    import httpx
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "retrail.http needs httpx. Run: pip install 'retrail[openai]' (in a clone: "
        "pip install './retrail[openai]').",
        name=error.name,
    ) from error

DEFAULT_URL = "http://127.0.0.1:8080"
TRAJECTORY_HEADER = "Retrail-Trajectory"
MAX_REASONING = 200_000
"""Longest reasoning that the server accepts, in characters."""
KEEPALIVE_SECONDS = 2.0
"""Shorter than the 5 s after which the server closes an idle connection."""

Outcome = Literal["correct", "incorrect", "unknown"]
Verdict = Literal["relevant", "irrelevant"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that a search found.

    Attributes:
        rank: 1 is the best.
        snippet: beginning of the text, in one line.
        text: the whole text, if the search asked for texts.
    """

    doc_id: str
    rank: int
    score: float
    title: str
    snippet: str
    text: str | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits by rank, and the version of the retriever that found them."""

    hits: list[Hit]
    retriever_version: int


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was opened."""

    doc_id: str
    title: str
    text: str


class SearchClient:
    """A connection pool to ``retrail serve``, for any number of threads and event loops.

    Args:
        url: base URL of the server.
        token: default ``RETRAIL_SERVE_TOKEN``, or the content of the file at
            ``RETRAIL_SERVE_TOKEN_FILE``, else none.
        agent: name of the agent; default: ``agent``.
        model: its language model; pairs are weighted by the verbosity of agents of one model.
        tenant: owner of the trajectories.
        timeout: seconds to wait for a connection, and for each part of a response.

    Raises:
        ConfigurationError: this is not an HTTP URL, or the file of the token cannot be read.

    Example:
        >>> with SearchClient(agent="my-agent") as client:  # doctest: +SKIP
        ...     trajectory = client.trajectory()
        ...     found = trajectory.search("when was the bridge built", k=5)
        ...     document = trajectory.open(found.hits[0].doc_id)
        ...     trajectory.reason("It gives the year: 1965.")
        ...     trajectory.end("correct", answer="1965")
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        agent: str = "",
        model: str = "",
        tenant: str = "",
        timeout: float = 30.0,
    ) -> None:
        token = token or secret(environment(), "RETRAIL_SERVE_TOKEN")
        headers = {
            "Authorization": f"Bearer {token}" if token else "",
            "Retrail-Agent": agent,
            "Retrail-Model": model,
            "Retrail-Tenant": tenant,
        }
        self._url = url
        self._options: Json = {
            "base_url": url,
            "headers": {name: value for name, value in headers.items() if value},
            "timeout": timeout,
            "limits": httpx.Limits(keepalive_expiry=KEEPALIVE_SECONDS),
            # Not through a proxy of the environment.
            "mounts": dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]")),
        }
        try:
            is_valid = httpx.URL(url).scheme in ("http", "https")
        except httpx.InvalidURL:
            is_valid = False
        if not is_valid:
            raise ConfigurationError(f"{url} is not a URL such as {DEFAULT_URL}.")
        self._http = httpx.Client(**self._options)
        # A connection belongs to the event loop that opened it.
        self._async_http: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = (
            WeakKeyDictionary()
        )

    def trajectory(self, name: str | None = None) -> "ServedTrajectory":
        """A new trajectory; the first call opens it on the server.

        Args:
            name: at most 160 letters, digits and ``._:~-``; to a server without tokens a random
                UUID. Calls with one name are one trajectory until it ends, over all replicas of the
                server and all clients with this token. Default: a random UUID.
        """
        return ServedTrajectory(self, name or uuid.uuid4().hex)

    def post(self, path: str, body: Json, trajectory: str) -> Json:
        """Send a request of a trajectory; returns the response.

        Raises:
            ServeError: there is no response, or it is an error.
        """
        with self._errors(trajectory):
            headers = {TRAJECTORY_HEADER: trajectory}
            return _answer(self._http.post(path, json=body, headers=headers))

    async def apost(self, path: str, body: Json, trajectory: str) -> Json:
        """As :meth:`post`, without blocking the event loop."""
        loop = asyncio.get_running_loop()
        if (http := self._async_http.get(loop)) is None:
            http = self._async_http[loop] = httpx.AsyncClient(**self._options)
        with self._errors(trajectory):
            headers = {TRAJECTORY_HEADER: trajectory}
            return _answer(await http.post(path, json=body, headers=headers))

    def close(self) -> None:
        """Close the synchronous connections."""
        self._http.close()

    async def aclose(self) -> None:
        """Close the synchronous connections and those of the running event loop."""
        self.close()
        if http := self._async_http.pop(asyncio.get_running_loop(), None):
            await http.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @contextmanager
    def _errors(self, trajectory: str) -> Iterator[None]:
        try:
            yield
        except ServeError as error:
            error.trajectory_id = trajectory
            raise
        except httpx.HTTPError as error:
            failed = ServeError(f"No answer from {self._url}: {error or type(error).__name__}")
            failed.trajectory_id = trajectory
            raise failed from error


class ServedTrajectory:
    """An agent's work on one task, which the server publishes; for any number of threads.

    Each method has an ``a…`` twin to be awaited. A trajectory without a call for
    ``RETRAIL_MINE_IDLE_SECONDS`` ends.

    Attributes:
        name: by which requests name it.
        id: the trajectory's id on Kafka, for :meth:`retrail.Publisher.outcome`; ``None`` before
            the first response.
    """

    def __init__(self, client: SearchClient, name: str) -> None:
        self.name = name
        self.id: str | None = None
        self._client = client

    def reason(
        self,
        text: str | None = None,
        *,
        tokens: int | None = None,
        verdict: Verdict | None = None,
    ) -> None:
        """A reasoning of the agent; right after :meth:`open` it is about that document.

        A trajectory begins with a search; a reasoning before it is ignored.

        Args:
            text: the reasoning; of a longer one the last 200,000 characters are sent.
            tokens: its length, if the text is not sent.
            verdict: whether the document helped; it replaces the judge's.

        Raises:
            ServeError: this caller may not use the name (status 400), or there is no response.
        """
        self.post(self._path("reason"), _reasoning(text, tokens, verdict))

    async def areason(
        self,
        text: str | None = None,
        *,
        tokens: int | None = None,
        verdict: Verdict | None = None,
    ) -> None:
        """As :meth:`reason`."""
        await self.apost(self._path("reason"), _reasoning(text, tokens, verdict))

    def search(self, query: str, k: int = 10, *, texts: bool = False) -> SearchResult:
        """The ``k`` documents that are nearest to a query.

        Args:
            texts: whether hits include whole texts.

        Raises:
            ServeError: the index is unavailable, or the arguments are invalid.
        """
        return _search_result(self.post("search", {"query": query, "k": k, "texts": texts}))

    async def asearch(self, query: str, k: int = 10, *, texts: bool = False) -> SearchResult:
        """As :meth:`search`."""
        return _search_result(await self.apost("search", {"query": query, "k": k, "texts": texts}))

    def open(self, doc_id: str) -> Document:
        """A whole document.

        Raises:
            ServeError: the index has no such document (status 404) or is unavailable.
        """
        return _of(Document, self.post("open", {"doc_id": doc_id}))

    async def aopen(self, doc_id: str) -> Document:
        """As :meth:`open`."""
        return _of(Document, await self.apost("open", {"doc_id": doc_id}))

    def end(self, outcome: Outcome = "unknown", answer: str | None = None) -> None:
        """End the trajectory.

        Raises:
            ServeError: this caller may not use the name (status 400), or there is no response.
        """
        self.post(self._path("end"), {"outcome": outcome, "answer": answer})

    async def aend(self, outcome: Outcome = "unknown", answer: str | None = None) -> None:
        """As :meth:`end`."""
        await self.apost(self._path("end"), {"outcome": outcome, "answer": answer})

    def post(self, operation: str, body: Json) -> Json:
        """Send a request of the API.

        Args:
            operation: path after ``/v1/``.
        """
        return self._read(self._client.post(f"/v1/{operation}", body, self.name))

    async def apost(self, operation: str, body: Json) -> Json:
        """As :meth:`post`."""
        return self._read(await self._client.apost(f"/v1/{operation}", body, self.name))

    def _path(self, operation: str) -> str:
        return f"trajectories/{quote(self.name, safe='')}/{operation}"

    def _read(self, answer: Json) -> Json:
        self.id = answer["trajectory_id"]
        return answer


def _reasoning(text: str | None, tokens: int | None, verdict: Verdict | None) -> Json:
    """The body of a request."""
    kept = None if text is None else text[-MAX_REASONING:]
    return {"text": kept, "tokens": tokens, "verdict": verdict}


def _answer(response: httpx.Response) -> Json:
    try:
        body: Any = response.json()
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    # The response of a proxy is not a problem document.
    problem = body if isinstance(body, dict) else {}
    other = f"{response.url} answered: {response.status_code} {response.reason_phrase}"
    seconds = response.headers.get("Retry-After", "")
    raise ServeError(
        str(problem.get("detail") or other),
        status=response.status_code,
        retry_after=int(seconds) if seconds.isdecimal() else None,
    )


_Answer = TypeVar("_Answer")


def _of(kind: type[_Answer], answer: Mapping[str, Any]) -> _Answer:
    """A dataclass from a response, which may have more fields if the server is newer."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in answer.items() if name in names})


def _search_result(answer: Json) -> SearchResult:
    hits = [_of(Hit, hit) for hit in answer["hits"]]
    return SearchResult(hits, answer["retriever_version"])
