"""The HTTP API: search, documents, and the ends of trajectories, described by OpenAPI.

Run by ``retrail serve``. Errors are problem documents (RFC 9457, ``application/problem+json``).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, FastAPI, Header, Path, Request, Response, Security
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from schemas.errors import RetrailError
from serving.problems import PROBLEM, Problem, add_handlers, failure_of
from serving.service import SearchService
from serving.sessions import DEFAULT_AGENT, HANDLE, TRAJECTORY_HEADER, Agent, Caller, Outcome
from serving.tools import (
    MAX_REASONING,
    OpenedDocument,
    OpenRequest,
    Reasoning,
    SearchAnswer,
    SearchRequest,
)
from serving.tools import Request as AgentRequest

DESCRIPTION = f"""\
Search for agents. Every answered call is published as an event of a *trajectory*, from which the
retriever learns, so an agent behind this API is instrumented without a line of code.

- Send nothing with the first call of a task. Its answer carries the header `{TRAJECTORY_HEADER}`;
  send that with the calls that follow. Or make up a name of your own (`task-17`) and send it with
  every call.
- `reasoning` is what the agent thought since its last call. Right after it opened a document, it
  shows whether the document helped.
- End a task with `POST /v1/trajectories/{{id}}/end`. A silent one is ended after a while.
- A call that failed with 5xx published nothing: repeat it, with the same reasoning.
"""

_Name = Annotated[str | None, Header(max_length=128, pattern=r"^[\x20-\x7e]*$")]


class HttpSearchRequest(SearchRequest):
    """A query, and how much of the documents to give."""

    texts: Annotated[
        bool, Field(strict=True, description="whether hits have their whole `text`")
    ] = False


class EndRequest(AgentRequest):
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


def create_app(running: Callable[[], AbstractAsyncContextManager[SearchService]]) -> FastAPI:
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
    app.include_router(_operations)
    app.include_router(_probes)
    add_handlers(app)
    return app


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    meanings = {
        400: "Unreadable request",
        401: "No token, or a wrong one",
        404: "Not found",
        408: "The body took too long",
        413: "Too large",
        422: "Invalid request",
        500: "The server failed",
        503: "Cannot be answered now; repeat it after the seconds of `Retry-After`",
    }
    return {
        status: {"model": Problem, "description": meanings[status], "content": {PROBLEM: {}}}
        for status in statuses
    }


_operations = APIRouter(
    prefix="/v1",
    dependencies=[Security(HTTPBearer(auto_error=False, description="RETRAIL_SERVE_TOKEN"))],
    responses=_problems(400, 401, 408, 413, 422, 500, 503),
)
_probes = APIRouter()


def _agent(
    retrail_agent: _Name = None,
    retrail_model: _Name = None,
    retrail_tenant: _Name = None,
) -> Agent:
    return Agent(
        name=retrail_agent or DEFAULT_AGENT,
        model=retrail_model or "",
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
    wanted: HttpSearchRequest, caller: _Caller, service: _Service, response: Response
) -> SearchAnswer:
    """The documents that are nearest to a query: ids, titles and beginnings."""
    answer = await service.search(
        caller, wanted.query, wanted.k, wanted.reasoning, texts=wanted.texts
    )
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
    """End a task, with its outcome and answer."""
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
        return failure_of(error).response()


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
