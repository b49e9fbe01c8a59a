"""What tests of the registry write and look for."""

import re
from collections.abc import Callable
from pathlib import Path

import fsspec

from schemas.settings import Settings


def files(**contents: str) -> Callable[[Path], None]:
    """Writes files of these names and contents."""

    def write(folder: Path) -> None:
        for name, content in contents.items():
            (folder / name).write_text(content)

    return write


def left_over(settings: Settings) -> list[str]:
    """What an interrupted publication has left, on this machine and in object storage."""
    found = [str(path) for path in settings.data_dir.rglob(".*")]
    if settings.registry_url is None:
        return found
    names = objects(settings.registry_url)
    manifests = {name.removesuffix(".json") for name in names if re.search(r"/v\d+\.json$", name)}
    for name in names:
        model = re.match(r"(.*/v\d+)-[0-9a-f]{16}/", name)
        if "/." in name or (model and model[1] not in manifests):
            found.append(name)
    return found


def objects(url: str) -> list[str]:
    """All objects below a URL."""
    filesystem, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    found: list[str] = filesystem.find(root)
    return found
