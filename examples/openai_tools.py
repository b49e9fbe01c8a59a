"""An agent with OpenAI-style tools whose work Retrail learns from.

Its "model" is a script that speaks as a chat API does, so that the example runs without one; put
``client.chat.completions.create(model=…, messages=messages, tools=tools.tools())`` in its place.

retrail up --env-file retrail.env                 # in one shell
export RETRAIL_ENV_FILE=retrail.env               # in another one
retrail documents load my-corpus.jsonl
python examples/openai_tools.py "how do I open a gzip file"
"""

import json
import sys
from typing import Any

from retrail import Publisher
from schemas.settings import load
from serving.adapters.openai_tools import RetrailTools
from serving.search.retriever import Retriever

QUESTION = "how do I open a gzip file"

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


def work(question: str, retriever: Retriever, publisher: Publisher) -> str:
    messages: list[Message] = [{"role": "user", "content": question}]
    with publisher.trajectory() as trajectory:  # leaving the block ends the trajectory
        tools = RetrailTools(retriever, trajectory)
        while True:
            reply = scripted_model(messages, tools.tools())
            messages.append(reply)
            if not reply.get("tool_calls"):
                trajectory.reason("The document answers what was asked.")
                trajectory.answer(reply["content"])
                return str(reply["content"])
            for call in reply["tool_calls"]:
                content = tools.call(call["function"]["name"], call["function"]["arguments"])
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": content})


if __name__ == "__main__":
    with Publisher(agent="openai-example") as publisher, Retriever(load()) as retriever:
        print(work(" ".join(sys.argv[1:]) or QUESTION, retriever, publisher))
