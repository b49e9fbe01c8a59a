"""Traces of OpenTelemetry, as OTLP's file exporters write them: one trace request a line, in JSON.

The spans of a trace are in any order, on any lines, and may be repeated, so a file is read to its
end before its first trajectory is known; in memory are its spans, reduced.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from retrail_runtime.otlp import Request
from schemas.errors import InvalidRecordError
from streams.importing.files import Record
from streams.importing.readers import Fit, Trajectory
from streams.spans.dialects import OMITTED
from streams.spans.reduce import AgentSpan, reduced
from streams.spans.traces import trajectories


class _Otlp:
    def fits(self, value: Any) -> Fit:
        return 2 if isinstance(value, dict) and isinstance(value.get("resourceSpans"), list) else 0

    def scan(
        self, records: Iterable[Record]
    ) -> Iterator[tuple[str, Trajectory | InvalidRecordError]]:
        """Place and trajectory of all records of a file, or why one cannot be read."""
        traces: dict[str, tuple[str, dict[str, AgentSpan]]] = {}
        for place, value in records:
            try:
                if isinstance(value, InvalidRecordError):
                    raise value
                request = Request.of(value)
            except InvalidRecordError as error:
                yield place, error
                continue
            for trace_id, span in reduced(request.spans(OMITTED), Counter()):
                traces.setdefault(trace_id, (place, {}))[1].setdefault(span.span_id, span)
            if request.invalid:
                problem = f"{request.invalid} spans without a valid trace id or span id"
                yield place, InvalidRecordError(problem)
        for trace_id, (place, spans) in traces.items():
            yield from ((place, found) for found in trajectories(trace_id, spans.values()))


reader = _Otlp()
