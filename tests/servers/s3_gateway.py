"""A real S3 server as one child process on the loopback: versitygw over a folder.

Built by Go once into the user's cache; ``python -m tests.servers.s3_gateway`` does only that.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import structlog
from filelock import FileLock

from deploy import processes as ports
from deploy.errors import MissingToolError, StackError
from deploy.processes import Child, Server
from retrail_runtime.files import user_cache
from retrail_runtime.process import configure
from schemas.errors import RetrailError

log = structlog.get_logger(__name__)

VERSION = "1.8.0"
MODULE = "github.com/versity/versitygw/cmd/versitygw"
BUILD_TIMEOUT = 1800.0
"""Seconds; two cores take about three minutes."""

ACCESS_KEY = "retrail"
SECRET_KEY = "retrail-secret"


class S3Gateway(Server):
    """An S3 server whose buckets are the folders in ``<folder>/buckets``."""

    name = "s3"
    port_names = ("s3",)
    # No stack starts it: the registry has its own URL, and this is only its endpoint.
    setting = "registry"

    @property
    def client_address(self) -> str:
        """What AWS_ENDPOINT_URL must be to reach it; known once launched."""
        return f"http://{self.address}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which every AWS library reaches it; known once launched."""
        return {
            "AWS_ENDPOINT_URL": self.client_address,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def make_bucket(self, name: str) -> None:
        """Make an empty bucket."""
        self.bucket_folder(name).mkdir(parents=True)

    def bucket_folder(self, name: str) -> Path:
        """The folder of a bucket's objects, as files."""
        return self.folder / "buckets" / name

    def command(self) -> Child:
        """The server.

        Raises:
            MissingToolError: it was never built, and there is no Go.
            StackError: it could not be built.
        """
        program = built()
        for folder in ("buckets", "metadata"):
            (self.folder / folder).mkdir(exist_ok=True)
        return Child(
            self.name,
            [
                *(str(program), "--port", f"{ports.LOOPBACK}:{self.port}", "--quiet", "posix"),
                # Not every file system of a test machine has extended attributes.
                *("--sidecar", str(self.folder / "metadata"), str(self.folder / "buckets")),
            ],
            self.log_file,
            environment={"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
        )

    def answers(self) -> bool:
        """It serves as soon as it accepts connections."""
        return True


def cached() -> Path:
    """Where the server is kept, beside Kafka's jars."""
    return user_cache() / f"versitygw-{VERSION}" / "versitygw"


def require_tools() -> None:
    """Fail now if a tool is missing that :func:`built` needs.

    Raises:
        MissingToolError: it was never built, and there is no Go.
    """
    if not cached().is_file():
        _go()


def built() -> Path:
    """The server, built now if this user has none yet.

    It is built in a temporary folder and renamed when it is complete, so an interruption leaves
    nothing; a second process at the same time waits for the first.

    Raises:
        MissingToolError: it must be built, and there is no Go.
        StackError: it could not be built.
    """
    program = cached()
    if program.is_file():
        return program
    go = _go()
    program.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(program.with_suffix(".lock")):
        if program.is_file():
            return program
        log.info("building the S3 server, once", module=MODULE, version=VERSION, into=str(program))
        with tempfile.TemporaryDirectory(dir=program.parent) as part:
            child = Child(
                "go",
                [go, "install", f"{MODULE}@v{VERSION}"],
                Path(part) / "go.log",
                environment={"GOBIN": part},
            )
            if not child.run(BUILD_TIMEOUT) or child.exit_status != 0:
                raise StackError(f"Go could not build {MODULE} {VERSION}:\n{child.log_tail(8)}")
            (Path(part) / program.name).rename(program)
    return program


def _go() -> str:
    path = shutil.which("go")
    if path is None:
        raise MissingToolError(
            f"The S3 server (versitygw {VERSION}) must be built once and there is no Go on the "
            "PATH. Install Go 1.25 or newer."
        )
    return path


if __name__ == "__main__":
    configure()
    try:
        built()
    except RetrailError as error:
        sys.exit(str(error))
