"""Trace requests of OTLP (``ExportTraceServiceRequest``), in protobuf or JSON.

https://opentelemetry.io/docs/specs/otlp/ has the format. Both encodings give the same spans.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from google.protobuf.message import DecodeError
from msgspec import Meta, Struct
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from schemas.errors import InvalidRecordError

JSON, PROTOBUF = "application/json", "application/x-protobuf"
"""The two media types."""

_TRACE_ID, _SPAN_ID = re.compile(r"(?!0{32})[0-9a-f]{32}"), re.compile(r"(?!0{16})[0-9a-f]{16}")
_ERROR = 2
"""Status code of a span that failed."""


class RawSpan(NamedTuple):
    """A span as it was sent.

    Attributes:
        scope: name of the instrumentation library.
        trace_id, span_id, parent_id: hexadecimal; ``parent_id`` is empty for a root.
        start, end: ns since the epoch.
        attributes: by name, without those that the reader leaves out.
        events: name and attributes of each.
        links: trace and span ids; those that are invalid are left out.
        dropped: number of attributes that the SDK's limits removed.
        failed: whether its status is an error.
    """

    scope: str
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start: int
    end: int
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    links: list[tuple[str, str]]
    dropped: int
    failed: bool


# -- JSON: structs with the names of the protobuf classes ------------------------------------------

_Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Time = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Struct(Struct, rename="camel", gc=False):
    pass


class _Array(_Struct):
    values: list["_Value"] | None = None


class _Value(_Struct):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: _Int64 | None = None
    double_value: float | None = None
    array_value: _Array | None = None
    kvlist_value: "_Pairs | None" = None
    bytes_value: str | None = None


class _Pair(_Struct):
    key: str = ""
    value: _Value | None = None


class _Pairs(_Struct):
    values: list[_Pair] | None = None


class _Event(_Struct):
    name: str = ""
    attributes: list[_Pair] | None = None


class _Link(_Struct):
    trace_id: str = ""
    span_id: str = ""


class _Status(_Struct):
    code: int | str | None = None


class _Span(_Struct):
    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str | None = None
    name: str = ""
    start_time_unix_nano: _Time = 0
    end_time_unix_nano: _Time = 0
    attributes: list[_Pair] | None = None
    events: list[_Event] | None = None
    links: list[_Link] | None = None
    dropped_attributes_count: int = 0
    status: _Status | None = None


class _Scope(_Struct):
    name: str = ""


class _ScopeSpans(_Struct):
    scope: _Scope | None = None
    spans: list[_Span] | None = None


class _ResourceSpans(_Struct):
    scope_spans: list[_ScopeSpans] | None = None


class _Request(_Struct):
    resource_spans: list[_ResourceSpans] | None = None


_decode_json = msgspec.json.Decoder(_Request, strict=False).decode


# -- Reading ---------------------------------------------------------------------------------------


class Request:
    """A request that was decoded; its spans are read one by one.

    Attributes:
        invalid: spans without valid ids among those that :meth:`spans` has given.
    """

    def __init__(self, message: Any, value_of: Callable[[Any], Any]) -> None:
        self._message, self._value_of = message, value_of
        self.invalid = 0

    @classmethod
    def decode(cls, body: bytes) -> "Request":
        """Read a body; JSON begins with a brace, protobuf never does.

        Raises:
            InvalidRecordError: it is neither.
        """
        try:
            if body[:1] == b"{":
                return cls(_decode_json(body), _of_struct)
            return cls(ExportTraceServiceRequest.FromString(body), _of_message)
        except (DecodeError, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise _invalid(error) from error

    @classmethod
    def of(cls, value: Any) -> "Request":
        """Read a JSON value.

        Raises:
            InvalidRecordError: it is no request.
        """
        try:
            return cls(msgspec.convert(value, _Request, strict=False), _of_struct)
        except (msgspec.ValidationError, RecursionError) as error:
            raise _invalid(error) from error

    def spans(self, omitted: tuple[str, ...] = ()) -> Iterator[RawSpan]:
        """All spans with valid ids.

        Args:
            omitted: beginnings of the names of attributes that are not needed.
        """
        for resource in self._message.resource_spans or ():
            for scope_spans in resource.scope_spans or ():
                scope = scope_spans.scope.name if scope_spans.scope else ""
                for span in scope_spans.spans or ():
                    if (read := self._span(span, scope, omitted)) is not None:
                        yield read
                    else:
                        self.invalid += 1

    def check(self) -> tuple[int, int]:
        """Numbers of valid and invalid spans."""
        valid = invalid = 0
        for resource in self._message.resource_spans or ():
            for scope_spans in resource.scope_spans or ():
                for span in scope_spans.spans or ():
                    if _has_ids(_hex(span.trace_id), _hex(span.span_id)):
                        valid += 1
                    else:
                        invalid += 1
        return valid, invalid

    def _span(self, span: Any, scope: str, omitted: tuple[str, ...]) -> RawSpan | None:
        trace_id, span_id = _hex(span.trace_id), _hex(span.span_id)
        if not _has_ids(trace_id, span_id):
            return None
        parent_id = _hex(span.parent_span_id or "")
        status = span.status.code if span.status else 0
        links = ((_hex(link.trace_id), _hex(link.span_id)) for link in span.links or ())
        return RawSpan(
            scope=scope,
            trace_id=trace_id,
            span_id=span_id,
            parent_id=parent_id if _SPAN_ID.fullmatch(parent_id) else "",
            name=span.name,
            start=span.start_time_unix_nano,
            end=span.end_time_unix_nano,
            attributes=self._attributes(span.attributes, omitted),
            events=[(e.name, self._attributes(e.attributes, omitted)) for e in span.events or ()],
            links=[ids for ids in links if _has_ids(*ids)],
            dropped=span.dropped_attributes_count,
            failed=status in (_ERROR, "STATUS_CODE_ERROR"),
        )

    def _attributes(self, pairs: Sequence[Any] | None, omitted: tuple[str, ...]) -> dict[str, Any]:
        value_of = self._value_of
        return {p.key: value_of(p.value) for p in pairs or () if not p.key.startswith(omitted)}


def _invalid(error: Exception) -> InvalidRecordError:
    reason = " ".join(str(error).split())[:200]
    return InvalidRecordError(f"is no trace request of OTLP: {reason}", reason="malformed_json")


def _has_ids(trace_id: str, span_id: str) -> bool:
    return bool(_TRACE_ID.fullmatch(trace_id) and _SPAN_ID.fullmatch(span_id))


def _hex(identifier: bytes | str) -> str:
    return identifier.hex() if isinstance(identifier, bytes) else identifier.lower()


def _of_message(value: Any) -> Any:
    """The value of protobuf's ``AnyValue``."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "array_value":
        return [_of_message(one) for one in value.array_value.values]
    if kind == "kvlist_value":
        return {one.key: _of_message(one.value) for one in value.kvlist_value.values}
    if kind == "bytes_value":
        return value.bytes_value.hex()
    return None if kind is None else getattr(value, kind, None)


def _of_struct(value: _Value | None) -> Any:
    """The value of JSON's ``AnyValue``."""
    if value is None:
        return None
    if value.array_value is not None:
        return [_of_struct(one) for one in value.array_value.values or ()]
    if value.kvlist_value is not None:
        return {one.key: _of_struct(one.value) for one in value.kvlist_value.values or ()}
    found = (
        value.string_value,
        value.bool_value,
        value.int_value,
        value.double_value,
        value.bytes_value,
    )
    return next((one for one in found if one is not None), None)
