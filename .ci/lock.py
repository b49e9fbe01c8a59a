"""Writes the files of hashes that `make install` installs from: `make lock`.

`constraints.txt` has the versions. PyTorch and what comes with it stand in a file of their own,
which is replaced where its wheels come from another source.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WITH_TORCH = re.compile(r"(torch|triton|nvidia-|cuda-)")
FILES = {False: ROOT / "requirements" / "locked.txt", True: ROOT / "requirements" / "torch.txt"}


def split(compiled: str) -> dict[bool, str]:
    """The requirements with their hashes: those of PyTorch (``True``), and the others."""
    found = {False: "", True: ""}
    for requirement in re.split(r"\n(?=\w)", compiled.strip()):
        name, rest = requirement.split(maxsplit=1)
        with_torch = bool(WITH_TORCH.match(name))
        # NVIDIA's packages and Triton have wheels for Linux only.
        if with_torch and not name.startswith("torch"):
            name += " ; sys_platform == 'linux'"
        found[with_torch] += f"{name} {rest}\n"
    return found


def main() -> None:
    """Ask the package registry for the hashes of all wheels."""
    options = ["--no-deps", "--generate-hashes", "--no-header", "--no-annotate", "--universal"]
    compiled = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", "-q", "constraints.txt", *options],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for with_torch, text in split(compiled).items():
        FILES[with_torch].write_text(text)


if __name__ == "__main__":
    main()
