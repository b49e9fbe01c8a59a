"""Finding Java and Maven, and fetching Kafka's jars once."""

import threading
from pathlib import Path

import pytest

from deploy.errors import MissingToolError, StackError
from deploy.servers import jars


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
    assert jars.java_major(banner) == major


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's programs: the folder on the PATH, empty; the cache is empty too."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("shutil.which", _which_in(tmp_path / "bin"))
    return tmp_path / "bin"


def _which_in(folder: Path):  # type: ignore[no-untyped-def]
    def which(name: str, path: str | None = None) -> str | None:
        file = Path(path or folder) / name
        return str(file) if file.exists() else None

    return which


def test_no_java(machine: Path) -> None:
    with pytest.raises(MissingToolError, match=r"no Java on the PATH.*RETRAIL_KAFKA_BOOTSTRAP"):
        jars.require_tools()


def test_no_java_in_java_home(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(machine, "java", "echo 'openjdk version \"21\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(machine / "none"))
    with pytest.raises(MissingToolError, match="no Java in JAVA_HOME"):
        jars.require_tools()


def test_old_java(machine: Path) -> None:
    program(machine, "java", "echo 'openjdk version \"11.0.2\"' >&2")
    with pytest.raises(MissingToolError, match=r"Java 11; Kafka 4\.3\.1 needs 17"):
        jars.require_tools()


def test_maven_only_for_the_first_time(machine: Path) -> None:
    program(machine, "java", "echo 'openjdk version \"17.0.15\"' >&2")
    with pytest.raises(MissingToolError, match="no Maven"):
        jars.require_tools()
    jars.cache_folder().mkdir(parents=True)
    jars.require_tools()


FETCH = """
for argument; do case $argument in -DoutputDirectory=*) out=${argument#*=};; esac; done
mkdir -p $out; touch $out/kafka_2.13-4.3.1.jar
"""


def test_two_at_once_fetch_whole(machine: Path) -> None:
    program(machine, "mvn", FETCH)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(jars.kafka_jars())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [jars.cache_folder()] * 4
    assert list(jars.cache_folder().parent.iterdir()) == [jars.cache_folder()]
    assert [file.name for file in jars.cache_folder().iterdir()] == ["kafka_2.13-4.3.1.jar"]


def test_failed_fetch_leaves_nothing(machine: Path) -> None:
    program(machine, "mvn", "echo '[ERROR] no route to host'; exit 1")
    with pytest.raises(StackError, match="no route to host"):
        jars.kafka_jars()
    assert list(jars.cache_folder().parent.iterdir()) == []
