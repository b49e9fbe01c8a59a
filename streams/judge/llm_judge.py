"""The judge that asks an OpenAI-compatible chat-completions server for one word.

While the server is down, overloaded or silent the question waits, so the worker lags and nothing is
poisoned: an answer is ``unknown`` only if the server answers and what it says stays unusable.
"""

import asyncio
import hashlib
import random
import re
from collections import OrderedDict
from http import HTTPStatus
from typing import Any

import httpx
import structlog

from schemas.errors import ConfigurationError
from schemas.events import Verdict
from schemas.settings import Settings
from streams import metrics
from streams.judge.shared_answers import SharedAnswers

log = structlog.get_logger(__name__)

ATTEMPTS = 3
"""Unusable answers, or silences while others are answered, before a text counts as unknown."""

CACHE_SIZE = 20_000
LONGEST_TEXT = 20_000
LONGEST_ANSWER_TOKENS = 2_048
"""Enough for a model that thinks aloud first; one that does not stops after the word."""

SYSTEM_PROMPT = (
    "A search agent opened a document and then wrote down its reasoning. Decide from the reasoning "
    "alone whether the document helped the agent with its task.\n\n"
    "Answer NOT_RELEVANT only if the reasoning clearly says so: the document is unrelated, about "
    "another person or thing, lacks what was looked for, or could not be read. That the agent goes "
    "on searching, changes its query or turns to another part of its task does not make the "
    "document irrelevant. If the document helped a little, or the reasoning uses anything from it, "
    "or says nothing about it, answer RELEVANT.\n\n"
    "Answer with exactly one word: RELEVANT or NOT_RELEVANT."
)

_THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>|^.*</think(?:ing)?>", re.I | re.S)
_WORD = re.compile(r"\b(not(?:[\s_-]+\w+){0,2}[\s_-]*relevant|irrelevant|relevant)\b", re.I)

_REFUSED: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "refuses the key: check RETRAIL_JUDGE_API_KEY",
    HTTPStatus.FORBIDDEN: "refuses this key or model: check RETRAIL_JUDGE_API_KEY and _MODEL",
    HTTPStatus.NOT_FOUND: "knows no such path or model: check RETRAIL_JUDGE_URL (mostly it ends in "
    "/v1) and RETRAIL_JUDGE_MODEL",
}
_BUSY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


class JudgeUnavailableError(Exception):
    """The server does not answer now; ``pause`` is how many seconds it asks for, if it does."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


class LlmJudge:
    """Asks about each text once, also if it comes twice at once; see the module's docstring."""

    name = "llm"

    def __init__(
        self,
        url: str,
        model: str,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        concurrency: int = 16,
        first_pause: float = 0.5,
        longest_pause: float = 30.0,
    ) -> None:
        """Nothing is asked before the first text.

        Args:
            url: base URL, with or without ``/chat/completions``.
            model: name of the model on that server.
            api_key: sent as a bearer token.
            timeout: seconds for one answer.
            concurrency: questions under way at once.
            first_pause: seconds before the first retry, doubled up to
            longest_pause: the longest one.
        """
        digest = hashlib.sha256(SYSTEM_PROMPT.encode()).hexdigest()[:8]
        self.version = f"{model[:100]}/{digest}"
        self._url = url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self._model = model
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._slots = asyncio.Semaphore(concurrency)
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=timeout,
            limits=httpx.Limits(max_connections=concurrency),
        )
        self._cache: OrderedDict[bytes, Verdict] = OrderedDict()
        self._under_way = SharedAnswers[bytes, Verdict]()
        self._answers = 0
        self._outage = 0
        self._probe = asyncio.Lock()
        metrics.JUDGE_AVAILABLE.set(1)

    @classmethod
    def of(cls, settings: Settings) -> "LlmJudge":
        """The judge that the settings describe.

        Raises:
            ConfigurationError: no server or no model is named.
        """
        if not settings.judge_url or not settings.judge_model:
            raise ConfigurationError(
                "The judge llm needs RETRAIL_JUDGE_URL (base URL of an OpenAI-compatible server, "
                "for instance http://127.0.0.1:8000/v1) and RETRAIL_JUDGE_MODEL (a model on it)."
            )
        if not _is_http(settings.judge_url):
            raise ConfigurationError(
                f"RETRAIL_JUDGE_URL {settings.judge_url} is no address like http://127.0.0.1:8000/v1."
            )
        key = settings.judge_api_key
        return cls(
            settings.judge_url,
            settings.judge_model,
            key.get_secret_value() if key else None,
            timeout=settings.judge_timeout,
            concurrency=settings.judge_concurrency,
        )

    async def judge(self, text: str) -> Verdict:
        """The server's verdict; waits while it is down.

        Raises:
            ConfigurationError: the server refuses the key, the path or the model.
        """
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        known = self._cache.get(digest)
        if known is not None:
            self._cache.move_to_end(digest)
            metrics.JUDGE_REQUESTS.labels("cached").inc()
            return known
        if digest in self._under_way:
            metrics.JUDGE_REQUESTS.labels("shared").inc()
        return await self._under_way.get(digest, lambda: self._ask_and_keep(digest, text))

    async def _ask_and_keep(self, digest: bytes, text: str) -> Verdict:
        async with self._slots:
            verdict = await self._ask(text)
        if verdict != "unknown":
            self._cache[digest] = verdict
            if len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        return verdict

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(self, text: str) -> Verdict:
        """Ask until the answer is usable; ``unknown`` after :data:`ATTEMPTS` that are not.

        Silence counts against the text only if others were answered meanwhile.
        """
        failed = silences = 0
        while True:
            answers_before = self._answers
            try:
                response = await self._post(text, temperature=0.0 if failed == 0 else 0.5)
            except httpx.TimeoutException:
                silences += 1
                if self._answers > answers_before:
                    failed += 1
                why = "no answer in time, while others are answered"
            else:
                verdict = self._read(response)
                if verdict is not None:
                    self._answers += 1
                    metrics.JUDGE_REQUESTS.labels("answered").inc()
                    return verdict
                failed += 1
                why = f"status {response.status_code}: {response.text[:200]!r}"
            if failed >= ATTEMPTS:
                return self._unusable(why)
            metrics.JUDGE_REQUESTS.labels("retried").inc()
            if silences:
                await asyncio.sleep(self._pause(silences))

    def _unusable(self, why: str) -> Verdict:
        metrics.JUDGE_REQUESTS.labels("unusable").inc()
        log.warning("no usable verdict", why=why, attempts=ATTEMPTS)
        return "unknown"

    def _read(self, response: httpx.Response) -> Verdict | None:
        """The verdict in a response; None if there is none in it."""
        if response.is_error:
            return None
        try:
            found = response.json()
            answer = found["choices"][0]["message"]["content"]
            usage = found.get("usage") or {}
        except (ValueError, LookupError, TypeError, AttributeError):
            return None
        for kind in ("prompt", "completion"):
            tokens = usage.get(f"{kind}_tokens") if isinstance(usage, dict) else None
            if isinstance(tokens, int):
                metrics.JUDGE_TOKENS.labels(kind).inc(max(0, tokens))
        return read_answer(answer) if isinstance(answer, str) else None

    async def _post(self, text: str, temperature: float) -> httpx.Response:
        """One question; while the server is down one caller at a time tries whether it is back.

        Raises:
            httpx.TimeoutException: connected, but no answer in time.
            ConfigurationError: see :meth:`judge`.
        """
        body = {
            "model": self._model,
            "messages": [
                {"role": "system", "content": SYSTEM_PROMPT},
                {"role": "user", "content": f"The reasoning:\n\n{text[:LONGEST_TEXT]}"},
            ],
            "temperature": temperature,
            "max_tokens": LONGEST_ANSWER_TOKENS,
        }
        asked_for = 0.0
        while True:
            if not self._outage:
                try:
                    return await self._post_once(body)
                except JudgeUnavailableError as error:
                    asked_for = error.pause
                    self._went_down(error)
            async with self._probe:
                if self._outage:
                    await asyncio.sleep(max(asked_for, self._pause(self._outage)))
                    try:
                        response = await self._post_once(body)
                    except JudgeUnavailableError as error:
                        asked_for = error.pause
                        self._outage += 1
                    else:
                        self._came_back()
                        return response

    def _went_down(self, error: JudgeUnavailableError) -> None:
        if not self._outage:
            self._outage = 1
            metrics.JUDGE_AVAILABLE.set(0)
            log.warning("judging server is down; waiting for it", url=self._url, error=str(error))

    def _came_back(self) -> None:
        self._outage = 0
        metrics.JUDGE_AVAILABLE.set(1)
        log.info("judging server is back", url=self._url)

    def _pause(self, attempts: int) -> float:
        longest = min(self._longest_pause, self._first_pause * 2.0 ** min(attempts - 1, 20))
        return longest * random.uniform(0.5, 1.0)

    async def _post_once(self, body: dict[str, Any]) -> httpx.Response:
        try:
            response = await self._client.post(self._url, json=body)
        except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise JudgeUnavailableError(repr(error)) from error
        except httpx.TimeoutException:
            raise
        except httpx.TransportError as error:
            raise JudgeUnavailableError(repr(error)) from error
        status = response.status_code
        if status in _REFUSED:
            raise ConfigurationError(
                f"The judging server {self._url} {_REFUSED[status]}. It says: {response.text[:300]}"
            )
        if status in _BUSY or response.is_server_error:
            raise JudgeUnavailableError(f"status {status}", _retry_after(response))
        return response


def read_answer(answer: str) -> Verdict | None:
    """The one word of an answer, read tolerantly; None if there is none, or both are there.

    >>> read_answer("<think>Is it RELEVANT?</think> not relevant.")
    'irrelevant'
    """
    words = {
        "relevant" if word.lower() == "relevant" else "irrelevant"
        for word in _WORD.findall(_THOUGHT.sub(" ", answer))
    }
    return words.pop() if len(words) == 1 else None  # type: ignore[return-value]


def _is_http(address: str) -> bool:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host)


def _retry_after(response: httpx.Response) -> float:
    """Seconds that a busy server asks for; at most a minute."""
    try:
        return min(60.0, max(0.0, float(response.headers.get("Retry-After", 0))))
    except ValueError:
        return 0.0
