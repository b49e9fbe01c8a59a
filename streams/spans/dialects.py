"""The names of attributes in the conventions that instrumentation packages follow.

One table for each convention, with the version that it was read from. A table names, for each
field of a span, the attributes that may hold it; the first that does counts. Names that end in a
point are prefixes of flattened lists (``llm.output_messages.0.message.content``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from openinference.semconv.trace import OpenInferenceSpanKindValues as OpenInferenceKind
from openinference.semconv.trace import SpanAttributes as OpenInference

Kind = Literal["agent", "llm", "search", "tool", "evaluator", "other"]
Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One convention.

    Attributes:
        name: in counters and in `retrail doctor`.
        version: what the table was read from.
        marks: a span follows the convention if it has one of these attributes.
        kind: attributes whose value ``kinds`` maps.
        agent, model, tool, conversation: names and ids.
        arguments, result: of a tool.
        query, documents: of a retriever.
        outputs: messages that a model or an agent wrote.
        text: the output of a model or an agent that has no messages.
        capture: the setting of the instrumentation that turns contents on.
    """

    name: str
    version: str
    marks: Names
    kind: Names
    kinds: Mapping[str, Kind]
    agent: Names
    model: Names
    tool: Names
    arguments: Names
    result: Names
    query: Names
    documents: Names
    outputs: Names
    text: Names
    conversation: Names
    capture: str


GENAI = Dialect(
    name="genai",
    version="semantic-conventions-genai, opentelemetry-util-genai 1.3b0",
    marks=("gen_ai.operation.name", "mcp.method.name"),
    kind=("gen_ai.operation.name", "mcp.method.name"),
    kinds={
        "invoke_agent": "agent",
        "chat": "llm",
        "text_completion": "llm",
        "generate_content": "llm",
        "execute_tool": "tool",
        "tools/call": "tool",
        "retrieval": "search",
    },
    agent=("gen_ai.agent.name",),
    model=("gen_ai.response.model", "gen_ai.request.model"),
    tool=("gen_ai.tool.name",),
    arguments=("gen_ai.tool.call.arguments",),
    result=("gen_ai.tool.call.result",),
    query=("gen_ai.retrieval.query.text",),
    documents=("gen_ai.retrieval.documents",),
    outputs=("gen_ai.output.messages",),
    text=(),
    conversation=("gen_ai.conversation.id",),
    capture="OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=SPAN_ONLY "
    "(and OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental)",
)

GENAI_BEFORE = replace(
    GENAI,
    name="genai-before",
    version="semantic-conventions 1.26 to 1.36, in which a span names its system",
    marks=("gen_ai.system",),
    # Flattened, as early packages wrote them; others wrote OUTPUT_EVENTS.
    outputs=("gen_ai.output.messages", "gen_ai.completion."),
    capture="OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true",
)

_PROPERTIES = "traceloop.association.properties."
TRACELOOP = replace(
    GENAI,
    name="openllmetry",
    version="opentelemetry-instrumentation-langchain 0.62.4, opentelemetry-semantic-conventions-ai "
    "0.5.1",
    marks=("traceloop.span.kind", "traceloop.entity.name", "traceloop.workflow.name"),
    kind=("gen_ai.operation.name", "traceloop.span.kind", "llm.request.type"),
    kinds={
        **GENAI.kinds,
        "vector_db_retrieve": "search",
        "agent": "agent",
        "tool": "tool",
        "completion": "llm",
    },
    agent=("gen_ai.agent.name", "traceloop.workflow.name"),
    model=(*GENAI.model, f"{_PROPERTIES}ls_model_name"),
    tool=("gen_ai.tool.name", "traceloop.entity.name"),
    arguments=("gen_ai.tool.call.arguments", "traceloop.entity.input"),
    result=("gen_ai.tool.call.result", "traceloop.entity.output"),
    query=("gen_ai.retrieval.query.text", "traceloop.entity.input"),
    documents=("gen_ai.retrieval.documents", "traceloop.entity.output"),
    outputs=("gen_ai.output.messages", "gen_ai.completion."),
    conversation=(
        "gen_ai.conversation.id",
        f"{_PROPERTIES}session_id",
        f"{_PROPERTIES}thread_id",
    ),
    capture="TRACELOOP_TRACE_CONTENT=true",
)

OPENINFERENCE = Dialect(
    name="openinference",
    version="openinference-semantic-conventions 0.1.42",
    marks=(OpenInference.OPENINFERENCE_SPAN_KIND,),
    kind=(OpenInference.OPENINFERENCE_SPAN_KIND,),
    kinds={
        OpenInferenceKind.AGENT.value: "agent",
        OpenInferenceKind.LLM.value: "llm",
        OpenInferenceKind.TOOL.value: "tool",
        OpenInferenceKind.RETRIEVER.value: "search",
        OpenInferenceKind.EVALUATOR.value: "evaluator",
    },
    agent=(OpenInference.AGENT_NAME, OpenInference.GRAPH_NODE_ID),
    model=(OpenInference.LLM_MODEL_NAME,),
    tool=(OpenInference.TOOL_NAME,),
    arguments=(OpenInference.INPUT_VALUE,),
    result=(OpenInference.OUTPUT_VALUE,),
    query=(OpenInference.INPUT_VALUE,),
    documents=(f"{OpenInference.RETRIEVAL_DOCUMENTS}.", OpenInference.OUTPUT_VALUE),
    outputs=(f"{OpenInference.LLM_OUTPUT_MESSAGES}.",),
    text=(OpenInference.OUTPUT_VALUE,),
    conversation=(OpenInference.SESSION_ID,),
    capture="OPENINFERENCE_HIDE_INPUTS=false and OPENINFERENCE_HIDE_OUTPUTS=false",
)

DIALECTS = (OPENINFERENCE, TRACELOOP, GENAI_BEFORE, GENAI)
"""In the order in which they are tried: Traceloop's spans have attributes of GenAI too."""

OMITTED = (
    "gen_ai.input.messages",
    "gen_ai.prompt",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
    f"{OpenInference.LLM_INPUT_MESSAGES}.",
    "llm.prompts",
    "llm.tools",
    "embedding.",
    "exception.",
    "tool.json_schema",
)
"""Attributes that no table names and that may be large: histories, prompts, vectors."""

EVALUATION = "gen_ai.evaluation.result"
"""Name of the span event of an evaluation."""

OUTPUT_EVENTS: Mapping[str, Names] = {
    "gen_ai.choice": ("message", "gen_ai.event.content"),
    "gen_ai.content.completion": ("gen_ai.completion", "gen_ai.event.content"),
}
"""Span events with an output of a model, before messages were attributes, and where it is."""

REDACTED = "__REDACTED__"
"""What OpenInference writes instead of a content that it hides."""


def dialect_of(attributes: Mapping[str, Any]) -> Dialect | None:
    """The convention that a span follows."""
    for dialect in DIALECTS:
        if any(mark in attributes for mark in dialect.marks):
            return dialect
    return None


def kind_of(dialect: Dialect, attributes: Mapping[str, Any]) -> Kind:
    """What a span is about."""
    found = (dialect.kinds.get(str(attributes.get(name))) for name in dialect.kind)
    return next((kind for kind in found if kind is not None), "other")


def value_of(attributes: Mapping[str, Any], names: Names) -> Any:
    """The first attribute that has a value, or the first flattened list that has entries."""
    for name in names:
        found = flattened(attributes, name) if name.endswith(".") else attributes.get(name)
        if found not in (None, "", []):
            return found
    return None


MAX_DEPTH = 20
"""Of the names of a flattened list; what is deeper stays one name."""
MAX_DIGITS = 9
"""Of the number of an entry of a list; an entry with a longer one is left out."""


def flattened(attributes: Mapping[str, Any], prefix: str) -> list[Any]:
    """The entries of a list whose items are spread over attributes, in order.

    >>> flattened({"a.1.b.c": 3, "a.0.b": 2, "x": 1}, "a.")
    [{'b': 2}, {'b': {'c': 3}}]
    """
    root: dict[str, Any] = {}
    for name, value in attributes.items():
        if name.startswith(prefix):
            *path, last = name[len(prefix) :].split(".", MAX_DEPTH)
            at = root
            for step in path:
                below = at.setdefault(step, {})
                at = below if isinstance(below, dict) else {}
            at[last] = value
    return in_order(root)


def in_order(entries: Mapping[str, Any]) -> list[Any]:
    """The entries under numbers, in their order.

    >>> in_order({"10": "b", "9": "a", "x": "c"})
    ['a', 'b']
    """
    numbers = [name for name in entries if name.isdecimal() and len(name) <= MAX_DIGITS]
    return [entries[name] for name in sorted(numbers, key=int)]
