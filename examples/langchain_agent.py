"""A LangChain agent whose work Retrail learns from.

Its model is a script, so that the example needs no LLM; put a chat model in its place, such as
``init_chat_model("qwen3:30b", model_provider="ollama")``.

pip install './retrail[langchain]' langchain      # the client and its extra
retrail serve                                     # in another shell, see the README
python examples/langchain_agent.py "how do I open a gzip file"
"""

import json
import sys
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from retrail.adapters.langchain import RetrailCallbackHandler, search_tools
from retrail.http import SearchClient


class ScriptedModel(BaseChatModel):
    """Search, open the best hit, answer with its text."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        results = [json.loads(m.text) for m in messages if isinstance(m, ToolMessage)]
        if not results:
            reply = _calls("", "search", {"query": messages[0].text, "k": 3})
        elif len(results) == 1:
            best = results[0]["hits"][0]["doc_id"]
            reply = _calls("The first hit looks right.", "open_document", {"doc_id": best})
        else:
            reply = AIMessage(results[1]["text"])
        return ChatResult(generations=[ChatGeneration(message=reply)])


def _calls(text: str, name: str, arguments: dict[str, Any]) -> AIMessage:
    return AIMessage(text, tool_calls=[{"name": name, "args": arguments, "id": f"call_{name}"}])


def work(question: str, client: SearchClient) -> str:
    agent = create_agent(ScriptedModel(), tools=search_tools(client))
    # Each run is a trajectory; the texts of the model go into it.
    agent = agent.with_config(callbacks=[RetrailCallbackHandler(client)])
    state = agent.invoke({"messages": [("user", question)]})
    return str(state["messages"][-1].text)


if __name__ == "__main__":
    with SearchClient(agent="langchain-example", model="none") as client:
        print(work(" ".join(sys.argv[1:]), client))
