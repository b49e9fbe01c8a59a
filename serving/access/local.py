"""The servers on this machine, found in the data directory: ``retrail search`` asks one of them.

Imports little: loading torch and a model for one query takes seconds.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any
from urllib.request import Request, urlopen

import structlog

from retrail_runtime.files import atomic_write, private_folder
from schemas.settings import Settings

log = structlog.get_logger(__name__)

MAX_K = 100
"""Hits of one answer of a server."""
MAX_QUERY = 4_000
"""Characters; an encoder reads a few hundred tokens."""


@contextmanager
def announced(settings: Settings, url: str) -> Iterator[None]:
    """Name a server in the data directory while it runs."""
    path = settings.data_dir / "run" / f"serve-{os.getpid()}.json"
    try:
        private_folder(path.parent)
        atomic_write(path, json.dumps({"url": url, "searches": _searched(settings)}))
    except OSError as error:
        log.info("`retrail search` does not find this server", path=str(path), reason=str(error))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def search(settings: Settings, query: str, k: int) -> dict[str, Any] | None:
    """The answer of a server in the data directory, published nowhere; ``None`` without one."""
    if k > MAX_K or len(query) > MAX_QUERY:
        return None
    body = json.dumps({"query": query, "k": k, "texts": True, "publish": False}).encode()
    headers = {"Content-Type": "application/json"}
    if settings.serve_token is not None:
        token = settings.serve_token.get_secret_value().partition(",")[0].strip()
        headers["Authorization"] = f"Bearer {token}"
    for path in sorted((settings.data_dir / "run").glob("serve-*.json")):
        try:
            found = json.loads(path.read_bytes())
            if found["searches"] != _searched(settings):
                continue
            request = Request(f"{found['url']}/v1/search", body, headers)
            with urlopen(request, timeout=settings.serve_deadline_seconds + 1) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except (OSError, HTTPException, ValueError, KeyError) as error:
            # It was killed, or cannot answer: the caller finds out why by searching itself.
            log.info("a server did not answer", path=str(path), reason=str(error))
    return None


def _searched(settings: Settings) -> list[str]:
    """What a server searches; another one on the same folder may search something else."""
    return [settings.milvus_uri, settings.retriever]
