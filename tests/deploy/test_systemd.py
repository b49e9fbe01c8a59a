"""systemd accepts the units and rates their hardening."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
MOST_EXPOSED = 2.5
"""Of 10, by `systemd-analyze security`; the network is needed."""

ANALYZE = shutil.which("systemd-analyze")
pytestmark = [
    pytest.mark.deploy,
    pytest.mark.skipif(ANALYZE is None, reason="needs systemd-analyze"),
]


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """The units as instances, with a program that exists here."""
    written = []
    for unit in UNITS.glob("*.service"):
        file = tmp_path / unit.name.replace("@", "@mine")
        text = unit.read_text().replace("/opt/retrail/bin/retrail", shutil.which("true") or "")
        file.write_text(text.replace("/etc/retrail/retrail.env", "-/etc/retrail/retrail.env"))
        written.append(str(file))
    assert len(written) == 2
    return written


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, *arguments], capture_output=True, text=True, timeout=60)


def test_the_units_are_valid(units: list[str]) -> None:
    done = analyze("verify", "--man=no", "--recursive-errors=no", *units)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_units_are_hardened(units: list[str]) -> None:
    for unit in units:
        done = analyze("security", "--offline=yes", "--no-pager", unit)
        exposed = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
        assert exposed is not None, done.stdout + done.stderr
        assert float(exposed[1]) <= MOST_EXPOSED, done.stdout


def test_both_units_have_the_same_hardening() -> None:
    hardening = []
    for unit in UNITS.glob("*.service"):
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        parser.optionxform = str  # type: ignore[assignment]
        parser.read(unit)
        service = dict(parser["Service"])
        del service["ExecStart"]
        hardening.append(service)
    assert hardening[0] == hardening[1]
