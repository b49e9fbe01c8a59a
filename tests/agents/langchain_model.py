"""A chat model of LangChain that plays a script."""

from typing import Any
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from tests.agents.script import Script, call_of, read


class ScriptedChatModel(BaseChatModel):
    """Plays a script; the text is beside the call, or with ``speaks`` in its arguments."""

    script: Script
    speaks: bool = False
    repeats: bool = False

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        results = [read(m.content) for m in messages if isinstance(m, ToolMessage)]
        turn = self.script.turn(results)
        call = call_of(turn, results, speaks=self.speaks, repeats=self.repeats)
        calls = [] if call is None else [{"name": call[0], "args": call[1], "id": uuid4().hex}]
        text = "" if calls and self.speaks else turn.text
        message = AIMessage(text, tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=message)])
