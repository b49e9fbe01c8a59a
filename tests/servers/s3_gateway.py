"""A real S3 server as one child process on the loopback: versitygw over a folder.

Built by Go once into the user's cache; ``python -m tests.servers.s3_gateway`` does only that.
"""

import json
import subprocess
import sys
from pathlib import Path

import botocore.session

from deploy import processes as ports
from deploy.processes import Child, Server
from retrail_runtime.process import configure
from schemas.errors import RetrailError
from tests.servers import go_modules

VERSION = "1.8.0"
PACKAGE = "github.com/versity/versitygw/cmd/versitygw"

ACCESS_KEY = "retrail"
SECRET_KEY = "retrail-secret"


class S3Gateway(Server):
    """An S3 server whose buckets are the folders in ``<folder>/buckets``."""

    name = "s3"
    port_names = ("s3",)
    # No stack starts it: the registry has its own URL, and this is only its endpoint.
    setting = "registry"

    certificate: tuple[Path, Path] | None = None
    """Certificate and key, for TLS; set before the start."""

    @property
    def client_address(self) -> str:
        """What AWS_ENDPOINT_URL must be to reach it; known once launched."""
        return f"http{'s' if self.certificate else ''}://{self.address}"

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

    def make_reader(self, name: str, bucket: str) -> None:
        """Make a user, with a secret of the same name, who may list and get in a bucket."""
        admin = (str(built()), "admin", "--access", ACCESS_KEY, "--secret", SECRET_KEY)
        user = ("create-user", "--access", name, "--secret", name, "--role", "user")
        at = ("--endpoint-url", self.client_address)
        made = subprocess.run([*admin, *at, *user], capture_output=True, text=True)
        assert made.returncode == 0, made.stderr or made.stdout
        resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        statements = [
            {"Effect": "Allow", "Principal": {"AWS": [name]}, "Action": [action], "Resource": [of]}
            for action, of in zip(("s3:ListBucket", "s3:GetObject"), resources, strict=True)
        ]
        client = botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.client_address,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        policy = {"Version": "2012-10-17", "Statement": statements}
        client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))

    def bucket_folder(self, name: str) -> Path:
        """The folder of a bucket's objects, as files."""
        return self.folder / "buckets" / name

    def command(self) -> Child:
        """The server.

        Raises:
            MissingToolError: it was never built, and there is no Go.
            StackError: it could not be built.
        """
        program, secured = built(), list[str]()
        if self.certificate:
            secured = ["--cert", str(self.certificate[0]), "--key", str(self.certificate[1])]
        for folder in ("buckets", "metadata", "users"):
            (self.folder / folder).mkdir(exist_ok=True)
        return Child(
            self.name,
            [
                *(str(program), "--port", f"{ports.LOOPBACK}:{self.port}", "--quiet"),
                *("--iam-dir", str(self.folder / "users"), *secured, "posix"),
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
    """Where the server is kept."""
    return go_modules.cached(PACKAGE, VERSION)


def require_tools() -> None:
    """Fail now if a tool is missing that :func:`built` needs.

    Raises:
        MissingToolError: it was never built, and there is no Go.
    """
    if not cached().is_file():
        go_modules.go_command(PACKAGE, VERSION)


def built() -> Path:
    """The server, built once; raises like :func:`tests.servers.go_modules.built`."""
    return go_modules.built(PACKAGE, VERSION)


if __name__ == "__main__":
    configure()
    try:
        built()
    except RetrailError as error:
        sys.exit(str(error))
