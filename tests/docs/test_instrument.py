"""Every Python block of docs/instrument.md is run, and what it publishes can be mined."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agents.servers import Servers, running_servers
from tests.serving.processes import ROOT, environment

PAGE = (ROOT / "docs" / "instrument.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
GIVEN = {
    "search(": "from tests.agents.corpus import found as search",
    "open_document(": "from tests.agents.corpus import open_document",
    "question": "from tests.agents.script import GZIP; question = GZIP.question",
    "create_agent": "from tests.agents.langchain_model import ScriptedChatModel; "
    "model = ScriptedChatModel(script=GZIP)",
    "from agents": "import agents; agents.set_tracing_disabled(True); "
    "from tests.agents.openai_model import ScriptedModel; "
    "model = ScriptedModel(GZIP, speaks=True, repeats={repeats})",
    "llm.": "from tests.agents.chat_api import ScriptedChat; llm = ScriptedChat(GZIP)",
}
"""What the reader has, by a text of the blocks that need it."""


@pytest.fixture(scope="module")
def servers(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with running_servers(kafka, tmp_path_factory.mktemp("servers")) as found:
        yield found


def titles() -> list[str]:
    """The heading above each block."""
    found, title = [], ""
    for heading, block in re.findall(r"^#+ (.*)$|^(```python)$", PAGE, re.M):
        title = heading or title
        found += [title] if block else []
    return found


@pytest.mark.parametrize("block", BLOCKS, ids=titles())
def test_a_block_runs_and_gives_pairs(block: str, servers: Servers, tmp_path: Path) -> None:
    given = [code for text, code in GIVEN.items() if text in block]
    lines = "\n".join(given).replace("{repeats}", str("mcp" in block))
    code = block.replace("http://127.0.0.1:8081/mcp", servers.mcp_url)
    script = tmp_path / "block.py"
    script.write_text(f"{lines}\n{code.replace('http://127.0.0.1:8080', servers.http_url)}")
    seen = servers.event_ids()
    done = subprocess.run(
        [sys.executable, script],
        env=environment(servers.settings),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    if "outcome(" not in block:
        assert "relevant" in {verdict for *_, verdict, _ in servers.learned(seen)}, done.stderr
