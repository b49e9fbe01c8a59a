"""The HTTP API: search, documents, and the ends of trajectories, described by OpenAPI.

Run by ``retrail serve``. Errors are problem documents (RFC 9457, ``application/problem+json``).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, FastAPI, Header, Path, Request, Response, Security
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field
from starlette.convertors import PathConvertor, register_url_convertor

from retrail_runtime.metrics import at_zero
from schemas.errors import RetrailError
from serving import metrics, otlp
from serving.access.tokens import caller_of, principal_of, require
from serving.guards import metrics_page
from serving.handles import DEFAULT_AGENT, NAME, Agent, Caller, Outcome
from serving.problems import PROBLEM, TRAJECTORY_HEADER, Problem, add_handlers, failure_of
from serving.service import SearchService
from serving.tools import (
    MAX_REASONING,
    Noted,
    OpenedDocument,
    OpenRequest,
    Reasoning,
    ReasonRequest,
    SearchAnswer,
    SearchRequest,
)
from serving.tools import Request as AgentRequest

DESCRIPTION = f"""\
Search for agents. Every answered call is published as an event of a *trajectory*, from which the
retriever learns. A caller needs no client of Kafka; it repeats the trajectory of the last answer.

- Send no trajectory with the first call of a task. Its answer carries the header
  `{TRAJECTORY_HEADER}`; send it with the calls that follow. Or choose a name of your own (a random
  UUID; to a server with tokens any name), and send it with every call.
- `reasoning` is what the agent thought since its last call. Right after it opened a document, it
  shows whether the document helped. `POST /v1/trajectories/{{id}}/reason` sends one without a call.
- End a task with `POST /v1/trajectories/{{id}}/end`. Idle trajectories end after a while. A search
  after the end begins a new trajectory, also under the same name.
- A call that failed with 5xx published nothing: repeat it, with the same reasoning.
"""

TAGS = [
    {"name": "search", "description": "Searching, and opening what was found."},
    {"name": "trajectories", "description": "An agent's work on one task."},
    {"name": "probes", "description": "For load balancers and supervisors; without a token."},
]


class _IdConvertor(PathConvertor):
    """A document id in a path: any characters, also newlines."""

    regex = r"[\s\S]*"


register_url_convertor("document_id", _IdConvertor())


def _name(description: str) -> Any:
    return Header(max_length=128, pattern=r"^[\x20-\x7e]*$", description=description)


class HttpSearchRequest(SearchRequest):
    """A query, and how much of each document the answer holds."""

    texts: Annotated[
        bool, Field(strict=True, description="whether each hit has its whole `text`")
    ] = False
    publish: Annotated[
        bool, Field(strict=True, description="whether the search is an event of a trajectory")
    ] = True


class EndRequest(AgentRequest):
    """How a task ended."""

    outcome: Outcome = "unknown"
    answer: Annotated[str | None, Field(max_length=MAX_REASONING)] = None
    reasoning: Reasoning = None


class EndedTrajectory(BaseModel):
    """A trajectory that has ended."""

    trajectory_id: str
    outcome: Outcome


class Health(BaseModel):
    """The state of a server."""

    status: str
    retriever_version: int | None = None


def create_app(
    running: Callable[[], AbstractAsyncContextManager[SearchService]],
    traces: otlp.Traces | None = None,
) -> FastAPI:
    """The API over a service that runs while the app does.

    Args:
        running: the service; entered when the app starts, left when it stops.
        traces: takes the traces of agents; without it there is no ``/v1/traces``.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running() as service:
            app.state.service = service
            try:
                yield
            finally:
                if traces is not None:
                    traces.close()

    # Its /docs loads nothing from the internet.
    app = FastAPIOffline(
        title="Retrail",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
        openapi_tags=TAGS,
    )
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    app.include_router(_operations)
    app.include_router(_probes)
    if traces is not None:
        app.state.traces = traces
        app.include_router(otlp.router)
    add_handlers(app)
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document; FastAPI's own gives errors the media type of answers."""
    if app.openapi_schema is None:
        api = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        for path in api["paths"].values():
            for operation in path.values():
                for status, response in operation["responses"].items():
                    if int(status) >= 400:
                        response["content"] = {PROBLEM: response["content"]["application/json"]}
        app.openapi_schema = api
    return app.openapi_schema


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


_TRAJECTORY = {TRAJECTORY_HEADER: _header("the trajectory; send it with the next call of the task")}
_ERROR_HEADERS = {
    401: {"WWW-Authenticate": _header("`Bearer`")},
    429: {"Retry-After": _header("seconds until the request may be repeated")},
    503: {"Retry-After": _header("seconds until the request may be repeated")},
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    meanings = {
        400: "Unreadable request, or a trajectory that this caller may not use",
        401: "No token, or a wrong one",
        403: "The token lacks a right, or the request comes from a page of another host",
        404: "Not found",
        408: "The body took too long",
        413: "Too large",
        422: "Invalid request",
        429: "The tenant has sent too many requests",
        500: "The server failed",
        503: "Cannot be answered now; repeat it after the seconds of `Retry-After`",
    }
    return {
        status: {
            "model": Problem,
            "description": meanings[status],
            "headers": _ERROR_HEADERS.get(status, {}),
        }
        for status in statuses
    }


_operations = APIRouter(
    prefix="/v1",
    dependencies=[Security(HTTPBearer(auto_error=False, description="RETRAIL_SERVE_TOKEN"))],
    responses=_problems(400, 401, 403, 408, 413, 422, 429, 500, 503),
)
_probes = APIRouter()


def _agent(
    retrail_agent: Annotated[str | None, _name(f"its name; else `{DEFAULT_AGENT}`")] = None,
    retrail_model: Annotated[str | None, _name("its language model")] = None,
    retrail_tenant: Annotated[str | None, _name("whose trajectory it is")] = None,
) -> Agent:
    return Agent(
        name=retrail_agent or DEFAULT_AGENT,
        model=retrail_model or "",
        tenant=retrail_tenant or "",
    )


def _service(request: Request) -> SearchService:
    service: SearchService = request.app.state.service
    return service


_Service = Annotated[SearchService, Depends(_service)]


def _caller(
    request: Request,
    response: Response,
    service: _Service,
    agent: Annotated[Agent, Depends(_agent)],
    retrail_trajectory: Annotated[
        str | None,
        Header(pattern=NAME, description="the trajectory to continue; else a new one"),
    ] = None,
) -> Caller:
    trajectory = service.trajectory_of(
        principal_of(request.scope), retrail_trajectory, request.headers.get("traceparent")
    )
    # FastAPI adds it to the operation's answer; answers to errors have headers of their own.
    response.headers[TRAJECTORY_HEADER] = trajectory
    return caller_of(request.scope, agent, trajectory)


def _owner(
    trajectory_id: Annotated[str, Path(pattern=NAME)],
    request: Request,
    response: Response,
    service: _Service,
    agent: Annotated[Agent, Depends(_agent)],
) -> Caller:
    """The caller of an operation on a trajectory that it names in the path."""
    found = service.handles.given(principal_of(request.scope), trajectory_id)
    response.headers[TRAJECTORY_HEADER] = found
    return caller_of(request.scope, agent, found)


_Caller = Annotated[Caller, Depends(_caller)]
_Owner = Annotated[Caller, Depends(_owner)]


@_operations.post(
    "/search",
    summary="Search",
    operation_id="search",
    tags=["search"],
    responses={200: {"headers": _TRAJECTORY}},
)
async def _search(wanted: HttpSearchRequest, caller: _Caller, service: _Service) -> SearchAnswer:
    """The documents nearest to a query: ids, titles and beginnings."""
    how = {"texts": wanted.texts, "publish": wanted.publish}
    return await service.search(caller, wanted.query, wanted.k, wanted.reasoning, **how)


@_operations.get(
    "/documents/{doc_id:document_id}",
    summary="Open a document",
    operation_id="get_document",
    tags=["search"],
    responses=_problems(404) | {200: {"headers": _TRAJECTORY}},
)
async def _get_document(
    doc_id: Annotated[str, Path(min_length=1, max_length=512)],
    caller: _Caller,
    service: _Service,
) -> OpenedDocument:
    """A whole document. `/v1/open` also takes a reasoning."""
    return await service.open(caller, doc_id)


@_operations.post(
    "/open",
    summary="Open a document, with a reasoning",
    operation_id="open_document",
    tags=["search"],
    responses=_problems(404) | {200: {"headers": _TRAJECTORY}},
)
async def _open(wanted: OpenRequest, caller: _Caller, service: _Service) -> OpenedDocument:
    """As `GET /v1/documents/{id}`, also for ids that no path can hold (`..`)."""
    return await service.open(caller, wanted.doc_id, wanted.reasoning)


@_operations.post(
    "/trajectories/{trajectory_id}/reason",
    summary="Add a reasoning",
    operation_id="reason",
    tags=["trajectories"],
    responses={200: {"headers": _TRAJECTORY}},
)
async def _reason(wanted: ReasonRequest, caller: _Owner, service: _Service) -> Noted:
    """What the agent thought: for callbacks, which see a model's text when it is written.

    A trajectory begins with a search; a reasoning before that is ignored.
    """
    await service.reason(
        caller, wanted.text, tokens=wanted.tokens, verdict=wanted.verdict, about=wanted.doc_id
    )
    return Noted(trajectory_id=caller.trajectory_id)


@_operations.post(
    "/trajectories/{trajectory_id}/end",
    summary="End a trajectory",
    operation_id="end_trajectory",
    tags=["trajectories"],
    responses={200: {"headers": _TRAJECTORY}},
)
async def _end(
    caller: _Owner,
    service: _Service,
    request: Request,
    ended: Annotated[EndRequest | None, Body()] = None,
) -> EndedTrajectory:
    """End a task, with its outcome and answer. The end of one that is not open changes nothing."""
    ended = ended or EndRequest()
    if ended.outcome != "unknown":
        require(request.scope, "outcome")
    await service.end(caller, ended.outcome, ended.answer, ended.reasoning)
    return EndedTrajectory(trajectory_id=caller.trajectory_id, outcome=ended.outcome)


@_probes.get("/healthz", summary="Whether the server runs", operation_id="healthz", tags=["probes"])
async def _healthz(service: _Service) -> Health:
    """The version is that of the last check of readiness."""
    return Health(status="ok", retriever_version=service.version)


@_probes.get(
    "/readyz",
    response_model=Health,
    summary="Whether searches are answered",
    operation_id="readyz",
    tags=["probes"],
    responses=_problems(503),
)
async def _readyz(service: _Service) -> Any:
    try:
        return Health(status="ok", retriever_version=await service.ready())
    except RetrailError as error:
        # The service has logged it.
        return failure_of(error).response()


_probes.add_api_route("/metrics", metrics_page, include_in_schema=False, operation_id="metrics")


for _route in _operations.routes:
    assert isinstance(_route, APIRoute)
    statuses = {"200", *map(str, _route.responses)}
    at_zero(metrics.REQUESTS, [str(_route.operation_id)], statuses)
at_zero(
    metrics.REQUESTS, [otlp.OPERATION], ("200", "400", "401", "403", "413", "415", "429", "503")
)
