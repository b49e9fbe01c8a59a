"""The wheels of client and server, each installed into a clean environment."""

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
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
SERVER_EXTRAS = {
    "streams": "streams.judge.judge_worker",
    "search": "serving.retriever",
    "s3": "s3fs",
    "train": "trainer.fit.finetune",
    "lora": "peft",
    "serve": "serving.http_api",
    "parquet": "pyarrow",
    "local": "milvus_lite",
}
"""An extra and a module that cannot be imported without it."""

pytestmark = [pytest.mark.dist, pytest.mark.timeout(1800)]


def uv(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "uv", *arguments], cwd=ROOT, check=True)


def contents(wheel: Path) -> set[str]:
    """Top-level folders of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name.partition("/")[0] for name in archive.namelist()}


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


def imports(python: Path, modules: Iterable[str], folder: Path) -> None:
    for module in modules:
        subprocess.run([python, "-c", f"import {module}"], cwd=folder, check=True)


def test_the_client_is_one_package_and_needs_confluent_kafka_alone(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    found = {name for name in contents(wheels["retrail"]) if not name.endswith(".dist-info")}
    assert found == {"retrail"}
    python = environment(tmp_path / "client", str(wheels["retrail"]))
    imports(python, ["retrail"], tmp_path)
    assert packages(python) == {"retrail", "confluent-kafka"}


@pytest.mark.parametrize("extra", sorted(CLIENT_EXTRAS))
def test_an_extra_of_the_client_can_be_imported(
    wheels: dict[str, Path], tmp_path: Path, extra: str
) -> None:
    python = environment(tmp_path / "client", f"retrail[{extra}] @ {wheels['retrail'].as_uri()}")
    imports(python, [CLIENT_EXTRAS[extra]], tmp_path)
    assert "retrail-server" not in packages(python)


def test_the_server_adds_nothing_to_the_client(wheels: dict[str, Path]) -> None:
    found = {name for name in contents(wheels["retrail_server"]) if not name.endswith("-info")}
    assert found == SERVER_PACKAGES


def test_the_server_brings_the_command_and_every_extra(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    server = f"retrail-server[all] @ {wheels['retrail_server'].as_uri()}"
    python = environment(tmp_path / "server", str(wheels["retrail"]), server)
    imports(python, SERVER_EXTRAS.values(), tmp_path)
    command = [python.parent / "retrail", "--version"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.strip() in wheels["retrail_server"].name


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_unit_tests_pass_on_other_versions_of_python(version: str, tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "uv", "python", "find", version], capture_output=True, text=True
    )
    if found.returncode != 0:
        pytest.skip(f"Python {version} is not installed")
    folder = tmp_path / "environment"
    uv("venv", "--quiet", "--python", found.stdout.strip(), str(folder))
    python = str(folder / "bin" / "python")
    client = ("--editable", "./retrail[openai,langchain]")
    installed = (*client, "--editable", ".[all]", "--group", "dev")
    constraints = ("--constraint", "constraints.txt")
    uv("pip", "install", "--quiet", "--python", python, *constraints, *installed)
    kinds = "not (integration or browser or deploy or dist or faults)"
    command = [python, "-m", "pytest", "-q", "-m", kinds, "-p", "no:cacheprovider", "-n", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
