"""Errors as problem documents (RFC 9457). Addresses and paths go to the log, not to callers."""

import json
from dataclasses import dataclass, replace
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from schemas.errors import (
    MilvusUnavailableError,
    ModelError,
    NoIndexError,
    NoTenantsError,
    RetrailError,
)

PROBLEM = "application/problem+json"
TRAJECTORY_HEADER = "Retrail-Trajectory"
"""Header of requests and answers that names the trajectory."""

log = structlog.get_logger(__name__)


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = None


def problem(
    status: int, title: str, detail: str, *, headers: dict[str, str] | None = None, **more: object
) -> Response:
    """A problem document as a response."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail} | more
    content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    return Response(content, status, headers, PROBLEM)


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a caller may see it; ``retry_after`` seconds, if repeating may help."""

    status: int
    title: str
    message: str
    retry_after: int | None = None

    def response(self, headers: dict[str, str] | None = None) -> Response:
        """As a problem document."""
        retry = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return problem(self.status, self.title, self.message, headers=retry | (headers or {}))


class RefusedError(RetrailError):
    """A request that is not answered.

    Attributes:
        failure: what its caller sees.
        trajectory_id: its trajectory, if it has one.
    """

    def __init__(self, failure: Failure, trajectory_id: str | None = None) -> None:
        super().__init__(failure.message)
        self.failure, self.trajectory_id = failure, trajectory_id


_KNOWN: dict[type[RetrailError], Failure] = {
    NoIndexError: Failure(
        503, "No index yet", "There is no index yet; it is being built. Try again later.", 5
    ),
    MilvusUnavailableError: Failure(
        503, "Index unavailable", "The index does not answer now. Repeat the request.", 1
    ),
    ModelError: Failure(
        503, "Model unavailable", "The model of the index is not loaded now. Retry later.", 30
    ),
    NoTenantsError: Failure(
        503,
        "Index without tenants",
        "The index was built before its documents had tenants, and this token is limited to those "
        "of its tenant. An operator must build the index again (`retrail index rebuild`).",
        30,
    ),
}
_OTHER = Failure(500, "Server error", "The server failed; its log has the reason.")


def failure_of(error: RetrailError) -> Failure:
    """What a caller may see of an error.

    >>> failure_of(NoIndexError("Milvus at http://10.0.0.7:19530 has no alias")).message
    'There is no index yet; it is being built. Try again later.'
    """
    if isinstance(error, RefusedError):
        return error.failure
    if isinstance(error, NoIndexError) and error.progress:
        return replace(_KNOWN[NoIndexError], message=f"There is no index yet: {error.progress}.")
    return next((_KNOWN[kind] for kind in type(error).__mro__ if kind in _KNOWN), _OTHER)


def add_handlers(app: FastAPI) -> None:
    """Answer every error by a problem document."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RetrailError, _failed)
    app.add_exception_handler(Exception, _crashed)


def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # What was sent is not repeated: it may be long, or a secret.
    errors = [{"at": list(item["loc"]), "message": item["msg"]} for item in error.errors()]
    detail = "; ".join(f"{'.'.join(map(str, e['at']))}: {e['message']}" for e in errors)
    return problem(422, "Invalid request", detail, errors=errors)


def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    title = {404: "Not found", 405: "Method not allowed"}.get(error.status_code, "Refused")
    headers = dict(error.headers or {})
    return problem(error.status_code, title, str(error.detail), headers=headers)


def _failed(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RetrailError)
    failure, headers = failure_of(error), {}
    if not isinstance(error, RefusedError):
        log.warning("cannot answer", error=str(error))
    elif error.trajectory_id is not None:
        headers = {TRAJECTORY_HEADER: error.trajectory_id}
    return failure.response(headers)


def _crashed(_request: Request, _error: Exception) -> Response:
    return _OTHER.response()
