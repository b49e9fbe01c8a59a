"""An agent with OpenAI-style tools whose work Retrail learns from.

Its "model" is a script that answers like a chat API, so that the example needs no LLM; put
``llm.chat.completions.create(model=…, messages=messages, tools=tools.tools())`` in its place.

pip install './retrail[openai]'                   # the client and its extra
retrail serve                                     # in another shell, see the README
python examples/openai_tools.py "how do I open a gzip file"
"""

import json
import sys
from typing import Any

from retrail.adapters.openai import RetrailTools
from retrail.http import SearchClient

Message = dict[str, Any]


def scripted_model(messages: list[Message], tools: list[dict[str, Any]]) -> Message:
    """Search, open the best hit, answer with its text."""
    results = [json.loads(m["content"]) for m in messages if m["role"] == "tool"]
    if not results:
        return _calls("search", {"query": messages[0]["content"], "k": 3})
    if len(results) == 1:
        best = results[0]["hits"][0]["doc_id"]
        return _calls("open_document", {"doc_id": best, "reasoning": "The first hit looks right."})
    return {"role": "assistant", "content": results[1]["text"]}


def _calls(name: str, arguments: dict[str, Any]) -> Message:
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"id": f"call_{name}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def work(question: str, client: SearchClient) -> str:
    messages: list[Message] = [{"role": "user", "content": question}]
    trajectory = client.trajectory()
    tools = RetrailTools(trajectory)
    while True:
        reply = scripted_model(messages, tools.tools())
        messages.append(reply)
        if not reply.get("tool_calls"):
            trajectory.reason("The document answers what was asked.")
            trajectory.end(answer=reply["content"])
            return str(reply["content"])
        for call in reply["tool_calls"]:
            content = tools.call(call["function"]["name"], call["function"]["arguments"])
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": content})


if __name__ == "__main__":
    with SearchClient(agent="openai-example", model="none") as client:
        print(work(" ".join(sys.argv[1:]), client))
