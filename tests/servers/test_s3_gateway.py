"""Building the S3 server of the tests once."""

import os
from pathlib import Path

import pytest

from deploy.errors import MissingToolError, StackError
from tests.servers import s3_gateway


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's programs: the folder before all others on the PATH; the cache is empty."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def go(machine: Path, script: str) -> None:
    file = machine / "go"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_it_is_built_once(machine: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    go(machine, f'echo "$@" >> {calls}; echo built > "$GOBIN/versitygw"')

    program = s3_gateway.built()
    assert s3_gateway.built() == program == s3_gateway.cached()

    assert program.read_text() == "built\n"
    assert calls.read_text() == f"install {s3_gateway.PACKAGE}@v{s3_gateway.VERSION}\n"
    s3_gateway.require_tools()


def test_a_failed_build_gives_the_reason_and_leaves_nothing(machine: Path) -> None:
    go(machine, "echo 'no such module' >&2; exit 1")

    with pytest.raises(StackError, match="no such module"):
        s3_gateway.built()

    assert {path.name for path in s3_gateway.cached().parent.iterdir()} <= {"versitygw.lock"}


def test_without_go_the_error_names_what_to_install(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    for missing in (s3_gateway.require_tools, s3_gateway.built):
        with pytest.raises(MissingToolError, match="Install Go"):
            missing()
