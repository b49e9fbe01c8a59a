"""The HTTP API: search, documents, and the ends of trajectories, described by OpenAPI.

Run by ``retrail serve``. Errors are problem documents (RFC 9457, ``application/problem+json``).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Body, Depends, FastAPI, Header, Path, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from schemas.base import DocId
from schemas.errors import RetrailError
from schemas.settings import Settings
from serving.api.failures import failure_of
from serving.api.guards import PROBLEM, problem
from serving.trajectories.service import (
    MAX_K,
    MAX_QUERY,
    MAX_REASONING,
    OpenedDocument,
    SearchAnswer,
    SearchService,
    UnknownDocumentError,
)
from serving.trajectories.sessions import HANDLE, Agent, Caller, Outcome

TRAJECTORY_HEADER = "Retrail-Trajectory"

DESCRIPTION = f"""\
Search for agents. Every answered call is published as an event of a *trajectory*, from which the
retriever learns, so an agent behind this API is instrumented without a line of code.

- Send nothing with the first call of a task. Its answer carries the header `{TRAJECTORY_HEADER}`;
  send that with the calls that follow. Or make up a name of your own (`task-17`) and send it with
  every call.
- `reasoning` is what the agent thought since its last call. Right after it opened a document, that
  tells whether the document helped.
- End a task with `POST /v1/trajectories/{{id}}/end`. A silent one is ended after a while.
- A call that failed with 5xx published nothing: repeat it, with the same reasoning.
"""

Reasoning = Annotated[
    str | None,
    Field(
        max_length=MAX_REASONING,
        description="what the agent thought since its last call",
        examples=["This page names the year, but not the month."],
    ),
]
_Name = Annotated[str | None, Header(max_length=128, pattern=r"^[\x20-\x7e]*$")]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SearchRequest(_Input):
    """A query."""

    query: Annotated[
        str, Field(min_length=1, max_length=MAX_QUERY, examples=["how to parse a date"])
    ]
    k: Annotated[int, Field(ge=1, le=MAX_K, description="how many hits")] = 10
    reasoning: Reasoning = None


class OpenRequest(_Input):
    """A document to open, and why."""

    doc_id: DocId
    reasoning: Reasoning = None


class EndRequest(_Input):
    """How a task ended."""

    outcome: Outcome = "unknown"
    answer: Annotated[str | None, Field(max_length=MAX_REASONING)] = None
    reasoning: Reasoning = None


class EndedTrajectory(BaseModel):
    """A trajectory that is over."""

    trajectory_id: str
    outcome: Outcome
    events: Annotated[int, Field(description="that it has, its end among them")]


class Health(BaseModel):
    """A server that can answer."""

    status: str
    retriever_version: int | None = None


class Problem(BaseModel):
    """What is wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = None


log = structlog.get_logger(__name__)


def create_app(
    settings: Settings, running: Callable[[], AbstractAsyncContextManager[SearchService]]
) -> FastAPI:
    """The API over a service that lives as long as the app does.

    Args:
        running: gives the service; entered when the app starts, left when it stops.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running() as service:
            app.state.service = service
            yield

    app = FastAPI(
        title="Retrail",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
    )
    app.state.settings = settings
    app.include_router(_operations)
    app.include_router(_probes)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(UnknownDocumentError, _unknown)
    app.add_exception_handler(RetrailError, _failed)
    app.add_exception_handler(Exception, _crashed)
    return app


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    said = {
        400: "Not a request that can be read",
        401: "No token, or a wrong one",
        404: "Not there",
        408: "The body took too long",
        413: "Too large",
        422: "Not what the contract asks for",
        500: "The server failed",
        503: "Cannot be answered now; `Retry-After` says when",
    }
    return {
        status: {"model": Problem, "description": said[status], "content": {PROBLEM: {}}}
        for status in statuses
    }


_operations = APIRouter(
    prefix="/v1",
    dependencies=[Security(HTTPBearer(auto_error=False, description="RETRAIL_SERVE_TOKEN"))],
    responses=_problems(400, 401, 408, 413, 422, 500, 503),
)
_probes = APIRouter()


def _agent(
    request: Request,
    retrail_agent: _Name = None,
    retrail_model: _Name = None,
    retrail_tenant: _Name = None,
) -> Agent:
    settings: Settings = request.app.state.settings
    return Agent(
        name=retrail_agent or settings.serve_agent,
        model=settings.serve_agent_model if retrail_model is None else retrail_model,
        tenant=retrail_tenant or "",
    )


def _caller(
    agent: Annotated[Agent, Depends(_agent)],
    retrail_trajectory: Annotated[
        str | None,
        Header(pattern=HANDLE, description="the trajectory to go on with; without it, a new one"),
    ] = None,
) -> Caller:
    return Caller(agent, retrail_trajectory)


def _service(request: Request) -> SearchService:
    service: SearchService = request.app.state.service
    return service


_Service = Annotated[SearchService, Depends(_service)]
_Caller = Annotated[Caller, Depends(_caller)]


@_operations.post("/search", summary="Search", operation_id="search")
async def _search(
    wanted: SearchRequest, caller: _Caller, service: _Service, response: Response
) -> SearchAnswer:
    """The documents that are nearest to a query: ids, titles and beginnings."""
    answer = await service.search(caller, wanted.query, wanted.k, wanted.reasoning)
    response.headers[TRAJECTORY_HEADER] = answer.trajectory_id
    return answer


@_operations.get(
    "/documents/{doc_id:path}",
    summary="Open a document",
    operation_id="get_document",
    responses=_problems(404),
)
async def _get_document(
    doc_id: Annotated[str, Path(min_length=1, max_length=512)],
    caller: _Caller,
    service: _Service,
    response: Response,
) -> OpenedDocument:
    """A whole document. See `/v1/open` for one that comes with a reasoning."""
    return await _opened(service, caller, doc_id, None, response)


@_operations.post(
    "/open",
    summary="Open a document, with a reasoning",
    operation_id="open_document",
    responses=_problems(404),
)
async def _open(
    wanted: OpenRequest, caller: _Caller, service: _Service, response: Response
) -> OpenedDocument:
    """As `GET /v1/documents/{id}`, for any id (`..` is none that a path can carry)."""
    return await _opened(service, caller, wanted.doc_id, wanted.reasoning, response)


@_operations.post(
    "/trajectories/{trajectory_id}/end",
    summary="End a trajectory",
    operation_id="end_trajectory",
    responses=_problems(404),
)
async def _end(
    trajectory_id: Annotated[str, Path(pattern=HANDLE)],
    agent: Annotated[Agent, Depends(_agent)],
    service: _Service,
    ended: Annotated[EndRequest | None, Body()] = None,
) -> EndedTrajectory:
    """Say that a task is over, how, and what was answered."""
    ended = ended or EndRequest()
    session = service.sessions.end(
        Caller(agent, trajectory_id), ended.outcome, ended.answer, ended.reasoning
    )
    if session is None:
        raise HTTPException(
            404,
            "No such trajectory is open: it has ended, it was silent for too long, or the server "
            "was restarted since.",
        )
    return EndedTrajectory(
        trajectory_id=session.trajectory_id, outcome=ended.outcome, events=session.events
    )


@_probes.get("/healthz", summary="Whether the server runs", operation_id="healthz")
async def _healthz() -> Health:
    return Health(status="ok")


@_probes.get(
    "/readyz",
    response_model=Health,
    summary="Whether searches are answered",
    operation_id="readyz",
    responses=_problems(503),
)
async def _readyz(service: _Service) -> Any:
    try:
        return Health(status="ok", retriever_version=await service.ready())
    except RetrailError as error:
        # The service has logged it, once.
        return _failure(error)


@_probes.get("/metrics", include_in_schema=False)
async def _metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def _opened(
    service: SearchService,
    caller: Caller,
    doc_id: str,
    reasoning: str | None,
    response: Response,
) -> OpenedDocument:
    document = await service.open(caller, doc_id, reasoning)
    response.headers[TRAJECTORY_HEADER] = document.trajectory_id
    return document


# -- Errors ---------------------------------------------------------------------------------------


def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # What was sent is not repeated: it may be long, or a secret.
    errors = [{"at": list(item["loc"]), "message": item["msg"]} for item in error.errors()]
    detail = "; ".join(f"{'.'.join(map(str, e['at']))}: {e['message']}" for e in errors)
    return _answer(422, "Invalid request", detail, errors=errors)


def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    titles = {404: "Not found", 405: "Method not allowed"}
    return _answer(
        error.status_code,
        titles.get(error.status_code, "Refused"),
        str(error.detail),
        headers=error.headers,
    )


def _unknown(_request: Request, error: Exception) -> Response:
    assert isinstance(error, UnknownDocumentError)
    headers = {TRAJECTORY_HEADER: error.trajectory_id}
    return _answer(404, "No such document", str(error), headers=headers)


def _failed(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RetrailError)
    log.warning("cannot answer", error=str(error))
    return _failure(error)


def _failure(error: RetrailError) -> Response:
    told = failure_of(error)
    headers = {} if told.retry_after is None else {"Retry-After": str(told.retry_after)}
    return _answer(told.status, told.title, told.message, headers=headers)


def _crashed(_request: Request, _error: Exception) -> Response:
    return _answer(500, "Server error", "The server failed; its log says why.")


def _answer(
    status: int,
    title: str,
    detail: str,
    *,
    headers: Any = None,
    **more: object,
) -> Response:
    return Response(problem(status, title, detail, **more), status, headers, PROBLEM)
