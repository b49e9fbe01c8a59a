"""The files of hashes that everything is installed from."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = {name: (ROOT / "requirements" / f"{name}.txt").read_text() for name in ("locked", "torch")}
PIN = re.compile(r"^([\w.-]+)==(\S+)", re.M)


def test_every_version_is_that_of_the_constraints() -> None:
    """`make lock` writes the files."""
    assert pins(FILES["locked"] + FILES["torch"]) == pins((ROOT / "constraints.txt").read_text())


def pins(text: str) -> dict[str, str]:
    """Versions by normalized name (PEP 503)."""
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in PIN.findall(text)}


@pytest.mark.parametrize("name", FILES)
def test_every_package_has_hashes_and_no_address(name: str) -> None:
    for requirement in re.split(r"\n(?=\w)", FILES[name].strip()):
        assert "--hash=sha256:" in requirement
    assert "://" not in FILES[name]


def test_torch_is_in_a_file_of_its_own() -> None:
    in_locked = [name for name, _ in PIN.findall(FILES["locked"])]
    assert not [name for name in in_locked if re.match("torch|triton|nvidia|cuda", name)]
    assert "torch" in dict(PIN.findall(FILES["torch"]))


@pytest.mark.parametrize("index", ["", "http://wheels.example/cpu"])
def test_make_takes_torch_from_the_lock_or_from_an_index(index: str, tmp_path: Path) -> None:
    """And warns before 6 GB are fetched; everything is compiled."""
    done = subprocess.run(
        ["make", "-n", "install", f"VENV={tmp_path}", f"TORCH_INDEX={index}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    installs = [line for line in done.stdout.splitlines() if "uv pip install" in line]
    assert all("--compile-bytecode" in line for line in installs)
    assert ("requirements/torch.txt" in done.stdout) == (not index)
    assert (f"--index-url {index} --constraint constraints.txt torch" in done.stdout) == bool(index)
    (warning,) = (line for line in done.stdout.splitlines() if line.startswith("test -n"))
    assert warning.startswith(f'test -n "{index}" || ls -d {tmp_path}/lib/')
    assert "6 GB" in done.stdout
