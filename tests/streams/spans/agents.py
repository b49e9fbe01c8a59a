"""Agents of three frameworks that follow one script, under an instrumentation package.

``python -m tests.streams.spans.agents FRAMEWORK INSTRUMENTATION`` runs one and prints its spans,
one ``ExportTraceServiceRequest`` a line, as OTLP's file exporters write them. The instrumentation
packages patch what they find in a process, so each runs in one of its own.
"""

import asyncio
import base64
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DOCUMENTS = {
    "d1": "The harbour lamp was painted by the town in 1902.",
    "d2": "The harbour lamp was first lit in 1871 by its keeper.",
    "d3": "Lamps of the coast, a list.",
    "d4": "The keeper was Ada Holm, who lit the lamp for thirty years.",
}
RESULTS = {
    "harbour lamp year": ["d1", "d2", "d3"],
    "harbour lamp keeper": ["d2", "d4", "d3"],
}
QUESTION = "Who first lit the harbour lamp?"
ANSWER = "Ada Holm lit it in 1871."


@dataclass(frozen=True)
class Turn:
    """What the model says, and the tool that it calls; the last turn calls none."""

    text: str
    tool: str = ""
    argument: str = ""


SCRIPT = (
    Turn("", "search", "harbour lamp year"),
    Turn("The first hit may have it.", "open_document", "d1"),
    Turn("This is not relevant: it does not say who lit the lamp.", "open_document", "d2"),
    Turn("This page is relevant: the lamp was lit in 1871.", "search", "harbour lamp keeper"),
    Turn("The second hit names the keeper.", "open_document", "d4"),
    Turn("This answers the question: Ada Holm. I verify it.", "search", "harbour lamp year"),
    Turn(ANSWER),
)


def search(query: str) -> str:
    """Search the documents."""
    hits = [{"id": doc_id, "text": DOCUMENTS[doc_id]} for doc_id in RESULTS[query]]
    return json.dumps(hits)


def open_document(doc_id: str) -> str:
    """Open a document."""
    return DOCUMENTS[doc_id]


TOOLS = {"search": search, "open_document": open_document}
ARGUMENT = {"search": "query", "open_document": "doc_id"}


# -- LangChain -------------------------------------------------------------------------------------


def langchain(*, retriever: bool = False, serve: str = "") -> None:
    """``create_agent``, a graph of LangGraph.

    Args:
        retriever: the search tool calls a retriever.
        serve: URL of `retrail serve`, through which the agent searches, with our callback handler.
    """
    from langchain.agents import create_agent
    from langchain_core.documents import Document
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.outputs import ChatGeneration, ChatResult
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.tools import tool

    class Scripted(BaseChatModel):
        model_name: str = "scripted-1"

        @property
        def _llm_type(self) -> str:
            return "scripted"

        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self

        def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
            number = sum(isinstance(message, AIMessage) for message in messages)
            turn = SCRIPT[number]
            calls = [
                {
                    "name": turn.tool,
                    "args": {ARGUMENT[turn.tool]: turn.argument},
                    "id": f"call_{number}",
                }
                for _ in range(bool(turn.tool))
            ]
            reply = AIMessage(turn.text, tool_calls=calls)
            return ChatResult(generations=[ChatGeneration(message=reply)])

    class Lookup(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            return [
                Document(id=doc_id, page_content=DOCUMENTS[doc_id], metadata={"doc_id": doc_id})
                for doc_id in RESULTS[query]
            ]

    lookup = Lookup()

    @tool("search")
    def searching(query: str) -> str:
        """Search the documents."""
        if not retriever:
            return search(query)
        found = lookup.invoke(query)
        return json.dumps([{"id": one.id, "text": one.page_content} for one in found])

    tools, callbacks = [searching, tool(open_document)], []
    if serve:
        from retrail.adapters.langchain import RetrailCallbackHandler, search_tools
        from retrail.http import SearchClient

        client = SearchClient(serve, agent="keeper", model="scripted-1")
        tools, callbacks = search_tools(client), [RetrailCallbackHandler(client)]
    agent = create_agent(Scripted(), tools=tools, name="keeper")
    state = agent.invoke({"messages": [("user", QUESTION)]}, {"callbacks": callbacks})
    assert state["messages"][-1].text == ANSWER


# -- LlamaIndex ------------------------------------------------------------------------------------


def llama_index(*, retriever: bool = False) -> None:
    """``FunctionAgent``."""
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata
    from llama_index.core.llms.callbacks import llm_chat_callback
    from llama_index.core.llms.function_calling import FunctionCallingLLM
    from llama_index.core.llms.llm import ToolSelection
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.core.tools import FunctionTool

    class Scripted(FunctionCallingLLM):
        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata(is_function_calling_model=True, model_name="scripted-1")

        def _prepare_chat_with_tools(
            self, tools: Any, user_msg: Any = None, chat_history: Any = None, **kwargs: Any
        ) -> dict[str, Any]:
            messages = [*(chat_history or [])]
            return {"messages": messages + ([user_msg] if user_msg else [])}

        def get_tool_calls_from_response(
            self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
        ) -> list[ToolSelection]:
            return [
                ToolSelection(
                    tool_id=call["id"], tool_name=call["name"], tool_kwargs=call["arguments"]
                )
                for call in response.message.additional_kwargs.get("tool_calls", [])
            ]

        def _reply(self, messages: Any) -> ChatResponse:
            number = sum(message.role.value == "assistant" for message in messages)
            turn = SCRIPT[number]
            calls = [
                {
                    "id": f"call_{number}",
                    "name": turn.tool,
                    "arguments": {ARGUMENT[turn.tool]: turn.argument},
                }
                for _ in range(bool(turn.tool))
            ]
            message = ChatMessage(
                role="assistant", content=turn.text, additional_kwargs={"tool_calls": calls}
            )
            return ChatResponse(message=message)

        @llm_chat_callback()
        def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            return self._reply(messages)

        @llm_chat_callback()
        async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            return self._reply(messages)

        def complete(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

        async def acomplete(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

        def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
            yield self._reply(messages)

        async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
            async def replies() -> Any:
                yield self._reply(messages)

            return replies()

        def stream_complete(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

        async def astream_complete(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    class Lookup(BaseRetriever):
        def _retrieve(self, query_bundle: Any) -> list[NodeWithScore]:
            return [
                NodeWithScore(node=TextNode(id_=doc_id, text=DOCUMENTS[doc_id]), score=0.5)
                for doc_id in RESULTS[query_bundle.query_str]
            ]

    lookup = Lookup()

    def searching(query: str) -> str:
        if not retriever:
            return search(query)
        found = lookup.retrieve(query)
        return json.dumps([{"id": one.node.id_, "text": one.node.text} for one in found])

    agent = FunctionAgent(
        name="keeper",
        tools=[
            FunctionTool.from_defaults(searching, name="search", description="Search."),
            FunctionTool.from_defaults(open_document),
        ],
        llm=Scripted(),
        streaming=False,
    )

    async def work() -> str:
        return str(await agent.run(QUESTION))

    assert asyncio.run(work()) == ANSWER


# -- OpenAI Agents SDK -----------------------------------------------------------------------------


def openai_agents(*, retriever: bool = False) -> None:
    """``Runner.run``."""
    from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage, function_tool
    from agents.tracing import generation_span
    from openai.types.responses import (
        ResponseFunctionToolCall,
        ResponseOutputMessage,
        ResponseOutputText,
    )

    class Scripted(Model):
        number = 0

        async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
            turn, number = SCRIPT[self.number], self.number
            self.number += 1
            output: list[Any] = []
            if turn.text:
                text = ResponseOutputText(text=turn.text, type="output_text", annotations=[])
                output.append(
                    ResponseOutputMessage(
                        id=f"m{number}",
                        content=[text],
                        role="assistant",
                        status="completed",
                        type="message",
                    )
                )
            if turn.tool:
                output.append(
                    ResponseFunctionToolCall(
                        call_id=f"call_{number}",
                        name=turn.tool,
                        arguments=json.dumps({ARGUMENT[turn.tool]: turn.argument}),
                        type="function_call",
                    )
                )
            with generation_span(model="scripted-1") as span:
                # As the SDK's own chat model reports its answer.
                message: dict[str, Any] = {"role": "assistant", "content": turn.text or None}
                if turn.tool:
                    arguments = json.dumps({ARGUMENT[turn.tool]: turn.argument})
                    call = {"name": turn.tool, "arguments": arguments}
                    message["tool_calls"] = [
                        {"id": f"call_{number}", "type": "function", "function": call}
                    ]
                span.span_data.output = [message]
            return ModelResponse(output=output, usage=Usage(), response_id=None)

        def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    agent = Agent(
        name="keeper",
        model=Scripted(),
        tools=[function_tool(search), function_tool(open_document)],
    )
    result = asyncio.run(Runner.run(agent, QUESTION, run_config=RunConfig(), max_turns=20))
    assert result.final_output == ANSWER


FRAMEWORKS = {
    "langchain": langchain,
    "llama-index": llama_index,
    "openai-agents": openai_agents,
}


# -- Instrumentation -------------------------------------------------------------------------------


def instrument(framework: str, instrumentation: str, provider: Any) -> None:
    """Turn an instrumentation package on."""
    match framework, instrumentation:
        case "langchain", "openinference":
            from openinference.instrumentation.langchain import LangChainInstrumentor

            LangChainInstrumentor().instrument(tracer_provider=provider)
        case "langchain", "genai":
            from opentelemetry.instrumentation.genai.langchain import LangChainInstrumentor

            LangChainInstrumentor().instrument(tracer_provider=provider)
        case "langchain", "traceloop":
            from opentelemetry.instrumentation.langchain import LangchainInstrumentor

            LangchainInstrumentor().instrument(tracer_provider=provider)
        case "llama-index", "openinference":
            from openinference.instrumentation.llama_index import LlamaIndexInstrumentor

            LlamaIndexInstrumentor().instrument(tracer_provider=provider)
        case "openai-agents", "openinference":
            from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor

            OpenAIAgentsInstrumentor().instrument(tracer_provider=provider)
        case _:
            raise ValueError(f"no instrumentation {instrumentation} of {framework}")


def traced(framework: str, instrumentation: str, **options: Any) -> list[Any]:
    """The spans of one run, as the SDK's finished spans."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "lamp-agent"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrument(framework, instrumentation, provider)
    FRAMEWORKS[framework](**options)
    provider.force_flush()
    return list(exporter.get_finished_spans())


def lines(spans: list[Any]) -> Iterator[str]:
    """One request a span, as JSON of OTLP: ids are hexadecimal."""
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    for span in spans:
        request = MessageToDict(encode_spans([span]), use_integers_for_enums=True)
        for resource in request["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for one in scope["spans"]:
                    for holder in (one, *one.get("links", ())):
                        for name in ("traceId", "spanId", "parentSpanId"):
                            if name in holder:
                                holder[name] = base64.b64decode(holder[name]).hex()
        yield json.dumps(request)


if __name__ == "__main__":
    framework, instrumentation, *more = sys.argv[1:]
    options: dict[str, Any] = {"retriever": True} if "retriever" in more else {}
    if more and more[-1].startswith("http"):
        options["serve"] = more[-1]
    for line in lines(traced(framework, instrumentation, **options)):
        print(line)
