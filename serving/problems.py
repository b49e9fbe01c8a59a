"""Errors as problem documents (RFC 9457); the log gets what callers must not see (addresses)."""

import json
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from schemas.errors import MilvusUnavailableError, ModelError, NoIndexError, RetrailError
from serving.sessions import TRAJECTORY_HEADER

PROBLEM = "application/problem+json"

log = structlog.get_logger(__name__)


class Problem(BaseModel):
    """What is wrong (RFC 9457)."""

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


class UnknownDocumentError(RetrailError):
    """An agent opened a document that the index does not hold.

    Attributes:
        doc_id: as the agent gave it.
        trajectory_id: its trajectory, where the caller may not know it.
    """

    def __init__(self, doc_id: str, trajectory_id: str = "") -> None:
        super().__init__("The index holds no document with this id. Use a doc_id of a search hit.")
        self.doc_id, self.trajectory_id = doc_id, trajectory_id


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a caller may see it; ``retry_after`` seconds, if repeating may help."""

    status: int
    title: str
    message: str
    retry_after: int | None = None

    def response(self) -> Response:
        """As a problem document."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return problem(self.status, self.title, self.message, headers=headers)


_KNOWN: dict[type[RetrailError], Failure] = {
    NoIndexError: Failure(
        503, "No index yet", "There is no index yet; it is being built. Try again later.", 5
    ),
    MilvusUnavailableError: Failure(
        503, "Index unavailable", "The index does not answer now. Repeat the request.", 1
    ),
    ModelError: Failure(
        503, "Model unavailable", "The model of the index cannot be loaded now. Retry later.", 30
    ),
}
_OTHER = Failure(500, "Server error", "The server failed; its log has the reason.")


def failure_of(error: RetrailError) -> Failure:
    """What a caller may see of an error.

    >>> failure_of(NoIndexError("Milvus at http://10.0.0.7:19530 has no alias")).message
    'There is no index yet; it is being built. Try again later.'
    """
    return next((_KNOWN[kind] for kind in type(error).__mro__ if kind in _KNOWN), _OTHER)


def add_handlers(app: FastAPI) -> None:
    """Answer every error by a problem document."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(UnknownDocumentError, _unknown)
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


def _unknown(_request: Request, error: Exception) -> Response:
    assert isinstance(error, UnknownDocumentError)
    headers = {TRAJECTORY_HEADER: error.trajectory_id}
    return problem(404, "No such document", str(error), headers=headers)


def _failed(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RetrailError)
    log.warning("cannot answer", error=str(error))
    return failure_of(error).response()


def _crashed(_request: Request, _error: Exception) -> Response:
    return _OTHER.response()
