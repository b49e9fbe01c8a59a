"""``POST /v1/traces``: takes traces as OTLP over HTTP, and writes them to the topic otlp_spans.

https://opentelemetry.io/docs/specs/otlp/#otlphttp: protobuf or JSON, plain or gzip. A request is
checked and written unchanged; the worker `retrail worker otlp` makes trajectories of it. It is
answered once Kafka has it; exporters repeat requests that were answered by 503.
"""

import asyncio
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import structlog
from confluent_kafka import Producer
from fastapi import APIRouter
from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.requests import Request
from starlette.responses import Response

from retrail_runtime import kafka
from retrail_runtime.otlp import JSON, PROTOBUF
from retrail_runtime.otlp import Request as TraceRequest
from schemas.errors import DeliveryError, InvalidRecordError
from schemas.settings import Settings
from schemas.topics import ADDED_BYTES, MAX_EVENT_BYTES, Topics
from serving.problems import Failure, RefusedError

PATH = "/v1/traces"
OPERATION = "traces"
MAX_TRACES = MAX_EVENT_BYTES - ADDED_BYTES
"""Bytes of a request, decompressed: what a record of the topic holds."""
AT_ONCE = 16
"""Requests that wait for Kafka at once; more are answered by 503."""

log = structlog.get_logger(__name__)

_FULL = Failure(503, "Too many traces at once", "Kafka has not taken earlier traces yet.", 1)
_UNAVAILABLE = Failure(503, "Traces cannot be stored", "Kafka did not take the traces.", 5)
_TYPE = Failure(
    415, "Unsupported media type", f"Send {PROTOBUF} or {JSON}, plain or compressed with gzip."
)
_TOO_LARGE = Failure(413, "Request too large", f"Traces have at most {MAX_TRACES:,} bytes here.")


class Traces:
    """Writes requests to otlp_spans.

    The producer is made for the first request, so that a server without traces has none.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._topic = settings, Topics.of(settings).otlp_spans
        self._seconds = settings.serve_deadline_seconds
        self._threads = ThreadPoolExecutor(AT_ONCE, "otlp")
        self._waiting = 0
        self._producer: Producer | None = None

    async def accept(self, body: bytes, media_type: str, encoding: str) -> int:
        """Write a request; returns how many of its spans are invalid.

        Raises:
            RefusedError: it is no trace request, or Kafka does not take it now.
        """
        if media_type not in (JSON, PROTOBUF) or encoding not in ("", "identity", "gzip"):
            raise RefusedError(_TYPE)
        if self._waiting >= AT_ONCE:
            raise RefusedError(_FULL)
        if self._producer is None:
            self._producer = kafka.producer(self._settings)
        self._waiting += 1
        work = partial(self._write, self._producer, body, media_type, encoding)
        done = asyncio.get_running_loop().run_in_executor(self._threads, work)
        done.add_done_callback(self._finished)
        try:
            return await asyncio.wait_for(asyncio.shield(done), self._seconds)
        except TimeoutError as error:
            raise RefusedError(_UNAVAILABLE) from error
        except DeliveryError as error:
            log.warning("traces were not stored", error=str(error))
            raise RefusedError(_UNAVAILABLE) from error

    def close(self) -> None:
        """Give up what waits for Kafka, so that the process can end."""
        if self._producer is not None:
            self._producer.purge()
        self._threads.shutdown(wait=False)

    def _finished(self, done: asyncio.Future[int]) -> None:
        self._waiting -= 1
        # Nobody may wait for it any more.
        if not done.cancelled():
            done.exception()

    def _write(self, producer: Producer, body: bytes, media_type: str, encoding: str) -> int:
        if encoding == "gzip":
            body = _decompressed(body)
        if media_type == JSON:
            body = body.lstrip()
        try:
            if body[:1] == b"{" and media_type != JSON:
                raise InvalidRecordError("is no protobuf")
            if body[:1] != b"{" and media_type == JSON:
                raise InvalidRecordError("is no JSON object")
            valid, invalid = TraceRequest.decode(body).check()
        except InvalidRecordError as error:
            raise RefusedError(Failure(400, "Unreadable traces", f"The body {error}")) from error
        if valid:
            headers = [("content-type", media_type.encode())]
            kafka.publish_and_wait(producer, self._topic, value=body, headers=headers)
        return invalid


def _decompressed(body: bytes) -> bytes:
    """The content of a gzip body of a bounded size."""
    reader = zlib.decompressobj(wbits=31)
    try:
        content = reader.decompress(body, MAX_TRACES + 1)
    except zlib.error as error:
        raise RefusedError(Failure(400, "Unreadable traces", f"Not gzip: {error}")) from error
    if len(content) > MAX_TRACES:
        raise RefusedError(_TOO_LARGE)
    if not reader.eof or reader.unused_data:
        text = "The gzip body is cut off, or more follows it."
        raise RefusedError(Failure(400, "Unreadable traces", text))
    return content


router = APIRouter()


# Not in the OpenAPI document: OTLP's own documents describe it.
@router.post(PATH, operation_id=OPERATION, include_in_schema=False)
async def _traces(request: Request) -> Response:
    traces: Traces = request.app.state.traces
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "").strip().lower()
    invalid = await traces.accept(await request.body(), media_type, encoding)
    answer = ExportTraceServiceResponse()
    if invalid:
        text = "Spans without a valid trace id and span id were left out."
        answer.partial_success.rejected_spans = invalid
        answer.partial_success.error_message = text
    if media_type == JSON:
        return Response(MessageToJson(answer, indent=None), 200, None, JSON)
    return Response(answer.SerializeToString(), 200, None, PROTOBUF)
