"""A LangChain agent with the tools of langchain-mcp-adapters, in an environment of its own.

Its arguments are a JSON object: ``connection`` of an MCP server; ``session``: whether one session
is kept; ``serve``: URL of `retrail serve` for our callback handler, or nothing.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any

from langchain.agents import create_agent
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools

from retrail.adapters.langchain import RetrailCallbackHandler
from retrail.http import SearchClient
from tests.agents.langchain_model import ScriptedChatModel
from tests.agents.script import GZIP


async def work(connection: Any, session: bool, serve: str | None) -> str:
    """Play a script; returns the answer."""
    client = MultiServerMCPClient({"search": connection})
    callbacks: list[Any] = []
    async with AsyncExitStack() as stack:
        if session:
            tools = await load_mcp_tools(await stack.enter_async_context(client.session("search")))
        else:
            tools = await client.get_tools()
        if serve:
            http = await stack.enter_async_context(SearchClient(serve, agent="traced"))
            callbacks.append(RetrailCallbackHandler(http))
        # The handler sends what the model writes beside its calls.
        model = ScriptedChatModel(script=GZIP, speaks=not serve, repeats=not session)
        agent = create_agent(model, tools=tools)
        state = await agent.ainvoke(
            {"messages": [("user", GZIP.question)]}, {"callbacks": callbacks}
        )
    return str(state["messages"][-1].text)


if __name__ == "__main__":
    print(asyncio.run(work(**json.loads(sys.argv[1]))))
