"""A model of the OpenAI Agents SDK that plays a script."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

from agents import Model, ModelResponse, Usage
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

from tests.agents.script import Script, call_of, read


class ScriptedModel(Model):
    """Plays a script; the text is beside the call, or with ``speaks`` in its arguments."""

    def __init__(self, script: Script, *, speaks: bool = False, repeats: bool = False) -> None:
        self._script, self._speaks, self._repeats = script, speaks, repeats

    async def get_response(
        self, system_instructions: str | None, input: Any, *_: Any, **__: Any
    ) -> ModelResponse:
        items = [] if isinstance(input, str) else input
        results = [read(i["output"]) for i in items if i.get("type") == "function_call_output"]
        turn = self._script.turn(results)
        call = call_of(turn, results, speaks=self._speaks, repeats=self._repeats)
        output: list[Any] = []
        if call is None or not self._speaks:
            output.append(_message(turn.text))
        if call is not None:
            output.append(_call(*call))
        return ModelResponse(output=output, usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise NotImplementedError("this model does not stream")


def _message(text: str) -> ResponseOutputMessage:
    content = ResponseOutputText(annotations=[], text=text, type="output_text")
    return ResponseOutputMessage(
        id=uuid4().hex, content=[content], role="assistant", status="completed", type="message"
    )


def _call(name: str, arguments: dict[str, Any]) -> ResponseFunctionToolCall:
    return ResponseFunctionToolCall(
        arguments=json.dumps(arguments), call_id=uuid4().hex, name=name, type="function_call"
    )
