"""What the client needs: nothing of its extras, and what is missing is named."""

import subprocess
import sys

import pytest


def python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_base_imports_nothing_of_the_extras() -> None:
    found = python("import retrail, sys; print({'httpx', 'langchain_core'} & set(sys.modules))")
    assert found.stdout.strip() == "set()", found.stderr


@pytest.mark.parametrize(
    ("absent", "module", "extra"),
    [
        ("httpx", "retrail.http", "openai"),
        ("httpx", "retrail.adapters.openai", "openai"),
        ("langchain_core", "retrail.adapters.langchain", "langchain"),
    ],
)
def test_a_missing_extra_is_named(absent: str, module: str, extra: str) -> None:
    found = python(f"import sys; sys.modules[{absent!r}] = None; import {module}")
    assert found.returncode == 1
    last = found.stderr.splitlines()[-1]
    assert f"pip install 'retrail[{extra}]'" in last
    assert f"pip install './retrail[{extra}]'" in last
