"""A client of a chat API that plays a script, in the shape of the package `openai`."""

import json
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from tests.agents.script import Script, call_of, read


class ScriptedChat:
    """Answers ``chat.completions.create``; the text is beside the call."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._create))

    def _create(self, *, messages: list[Any], **_: Any) -> Any:
        results = [
            read(m["content"]) for m in messages if isinstance(m, dict) and "tool_call_id" in m
        ]
        turn = self._script.turn(results)
        call, calls = call_of(turn, results), None
        if call is not None:
            function = SimpleNamespace(name=call[0], arguments=json.dumps(call[1]))
            calls = [SimpleNamespace(id=uuid4().hex, type="function", function=function)]
        message = SimpleNamespace(role="assistant", content=turn.text, tool_calls=calls)
        return SimpleNamespace(choices=[SimpleNamespace(message=message)])
