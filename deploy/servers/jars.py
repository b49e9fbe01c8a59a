"""Java, and the jars of Apache Kafka, fetched once by Maven into the user's cache."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import structlog

from deploy.errors import MissingToolError, StackError
from deploy.processes.child import Child

log = structlog.get_logger(__name__)

KAFKA_VERSION = "4.3.1"
JAVA_AT_LEAST = 17
POM = Path(__file__).parent / "kafka" / "pom.xml"
MAVEN_TIMEOUT = 600.0
"""Seconds for 43 MB."""

WITHOUT_TOOLS = (
    "Install Java 17+ and Maven (Debian: apt install openjdk-17-jre-headless maven), or set "
    "RETRAIL_KAFKA_BOOTSTRAP to a Kafka cluster of your own."
)


def require_tools() -> None:
    """Fail now if :func:`java` or :func:`kafka_jars` would for want of a tool.

    Raises:
        MissingToolError: no Java 17+, or no Maven and the jars were never fetched.
    """
    java()
    if not cache_folder().is_dir():
        maven()


def maven() -> str:
    """Path of Maven.

    Raises:
        MissingToolError: it is not on the ``PATH``.
    """
    path = shutil.which("mvn")
    if path is None:
        raise MissingToolError(
            "Apache Kafka must be fetched once and there is no Maven (mvn) on the PATH. "
            f"{WITHOUT_TOOLS}"
        )
    return path


def java() -> str:
    """Path of a Java that runs Kafka: of ``JAVA_HOME`` if set, else on the ``PATH``.

    Raises:
        MissingToolError: there is none, or it is older than 17.
    """
    home = os.environ.get("JAVA_HOME")
    path = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if path is None:
        where = f"in JAVA_HOME ({home})" if home else "on the PATH"
        raise MissingToolError(f"There is no Java {where}. {WITHOUT_TOOLS}")
    try:
        answer = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=60)
    except OSError as error:
        raise MissingToolError(
            f"{path} cannot be run: {error.strerror}. {WITHOUT_TOOLS}"
        ) from error
    version = java_major(answer.stderr + answer.stdout)
    if answer.returncode != 0 or version is None:
        raise MissingToolError(f"{path} does not tell its version. {WITHOUT_TOOLS}")
    if version < JAVA_AT_LEAST:
        raise MissingToolError(
            f"{path} is Java {version}; Kafka {KAFKA_VERSION} needs {JAVA_AT_LEAST} or newer. "
            f"{WITHOUT_TOOLS}"
        )
    return path


def java_major(banner: str) -> int | None:
    """Major version in what ``java -version`` prints (``1.8.0_392`` is 8)."""
    found = re.search(r'version "(\d+)(?:\.(\d+))?', banner)
    if found is None:
        return None
    major = int(found[1])
    return int(found[2]) if major == 1 and found[2] else major


def cache_base() -> Path:
    """Where what is fetched once is kept: ``$XDG_CACHE_HOME/retrail`` or ``~/.cache/retrail``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retrail"


def cache_folder() -> Path:
    """Where the jars are kept."""
    return cache_base() / f"kafka-{KAFKA_VERSION}"


def kafka_jars() -> Path:
    """The folder with Kafka's jars, fetched now if this user has none yet.

    Fetched into a temporary folder that is renamed when it is complete, so that neither an
    interruption nor a second process at the same time leaves half of them.

    Raises:
        MissingToolError: they must be fetched and there is no Maven.
        StackError: Maven could not fetch them.
    """
    folder = cache_folder()
    if folder.is_dir():
        return folder
    program = maven()
    folder.parent.mkdir(parents=True, exist_ok=True)
    log.info("fetching Apache Kafka, once", version=KAFKA_VERSION, into=str(folder))
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as part:
        shutil.copy(POM, part)
        jars = Path(part) / "jars"
        _run_maven(program, Path(part) / POM.name, jars)
        try:
            jars.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def _run_maven(program: str, pom: Path, jars: Path) -> None:
    command = [program, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
    child = Child("maven", [*command, f"-DoutputDirectory={jars}"], pom.with_suffix(".log"))
    if not child.run(MAVEN_TIMEOUT):
        raise StackError(f"Maven did not fetch Apache Kafka in {MAVEN_TIMEOUT:.0f} s.")
    if child.exit_status != 0 or not list(jars.glob("kafka_*.jar")):
        said = "\n".join(child.log_file.read_text(errors="replace").splitlines()[:8])
        raise StackError(
            f"Maven could not fetch Apache Kafka {KAFKA_VERSION} (a proxy or mirror belongs into "
            f"~/.m2/settings.xml):\n{said}"
        )
