"""Models for tests of the registry, and checks of its contents."""

import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import orjson

from schemas.releases import Model
from schemas.settings import Settings
from trainer.registry.registry import Registry


def files(**contents: str) -> Callable[[Path], None]:
    """A function that writes files with these names and contents."""

    def write(folder: Path) -> None:
        for name, content in contents.items():
            (folder / name).write_text(content)

    return write


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Fail writes beyond ``size`` bytes of a file, like ``ulimit -f`` and like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(settings: Settings) -> list[str]:
    """All files of a registry, relative to it."""
    filesystem, root = fsspec.core.url_to_fs(settings.registry_url, use_listings_cache=False)
    found: list[str] = filesystem.find(root)
    return [name.removeprefix(root.rstrip("/")).lstrip("/") for name in found]


def read(settings: Settings, location: str) -> bytes:
    """A file of a registry."""
    with fsspec.open(f"{settings.registry_url}/{location}", "rb") as file:
        content: bytes = file.read()
    return content


def put(settings: Settings, location: str, content: bytes) -> None:
    """Write a file of a registry directly, to damage it."""
    with fsspec.open(f"{settings.registry_url}/{location}", "wb") as file:
        file.write(content)


def files_of(settings: Settings, model: Model) -> str:
    """Location of a model's files."""
    manifest = orjson.loads(read(settings, f"{model.location}.json"))
    return f"{model.location.rpartition('/')[0]}/{manifest['folder']}"


def versions(registry: Registry, retriever: str) -> list[int]:
    """The published versions up to 12."""
    return [number for number in range(13) if registry.published(retriever, number)]


def left_over(settings: Settings) -> list[str]:
    """Files that an interrupted publication has left in the registry and in the cache."""
    found = [str(path) for path in settings.model_cache.glob(".*")]
    every = names(settings)
    published = set()
    for name in every:
        if re.search(r"(^|/)v\d+\.json$", name):
            folder = orjson.loads(read(settings, name))["folder"]
            published.add(f"{name.rpartition('/')[0]}/{folder}")
    for name in every:
        model = re.match(r"(.*/v\d+-[0-9a-f]{16})/", name)
        if "/." in f"/{name}" or (model and model[1] not in published):
            found.append(name)
    return found
