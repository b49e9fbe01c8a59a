"""``retrail doctor``."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

if TYPE_CHECKING:
    from schemas.settings import Settings

State = Literal["ok", "optional", "missing"]

_COLOURS = {
    "ok": typer.colors.GREEN,
    "optional": typer.colors.YELLOW,
    "missing": typer.colors.RED,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do if it is not well."""

    what: str
    state: State
    said: str


Check = Callable[["Settings"], Finding]


def doctor() -> None:
    """Check what is needed, and say what to do.

    Looks at Java, Kafka, topics, Milvus, the model, the registry of models, the judge and the data
    folder. Every line says what is well or what to do; the exit status is 1 if something needed is
    missing. What only `retrail up` needs is optional.

    \b
    Example:
      RETRAIL_KAFKA_BOOTSTRAP=k1:9092 retrail doctor
    """
    from schemas.settings import load

    settings = load()
    missing: set[Check] = set()
    for check in CHECKS:
        found = _found(check, settings, missing)
        if found.state == "missing":
            missing.add(check)
        typer.secho(f"{found.state:9}", fg=_COLOURS[found.state], nl=False)
        typer.echo(f"{found.what}: {found.said}")
    if missing:
        raise typer.Exit(1)


def _found(check: Check, settings: "Settings", missing: set[Check]) -> Finding:
    """A check's finding; an error that tells what to do, or a library that is absent, is one."""
    from schemas.errors import RetrailError

    what = (check.__doc__ or "").rstrip(".")
    if check is topics and broker in missing:
        return Finding(what, "missing", "cannot be seen without Kafka.")
    try:
        return check(settings)
    except RetrailError as error:
        state: State = "optional" if check in OPTIONAL else "missing"
        return Finding(what, state, str(error))
    except ModuleNotFoundError as error:
        return Finding(
            what, "optional", f"{error.name} is not installed: pip install 'retrail-server[all]'"
        )


def python(settings: "Settings") -> Finding:
    """Python."""
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", "ok", f"{version} ({sys.executable})")


def local_kafka(settings: "Settings") -> Finding:
    """Java and Maven, for a broker on this machine."""
    from deploy.servers import jars

    jars.require_tools()
    fetched = jars.cache_folder().is_dir()
    said = f"Kafka {jars.KAFKA_VERSION} " + (
        f"is in {jars.cache_folder()}" if fetched else "can be fetched by Maven"
    )
    return Finding("Java and Maven, for a broker on this machine", "ok", f"{jars.java()}; {said}")


def local_milvus(settings: "Settings") -> Finding:
    """Milvus Lite, for `retrail up`."""
    import milvus_lite  # noqa: F401

    return Finding("Milvus Lite, for `retrail up`", "ok", "installed")


def broker(settings: "Settings") -> Finding:
    """Kafka."""
    from retrail_runtime.kafka import require_broker

    require_broker(settings, [], timeout=5.0)
    return Finding("Kafka", "ok", f"answers at {settings.kafka_bootstrap}")


def topics(settings: "Settings") -> Finding:
    """Topics."""
    from deploy.topics import survey

    found = survey(settings)
    absent = [spec.name for spec, actual, _ in found if actual is None]
    different = [str(one) for _, _, differences in found for one in differences]
    if different:
        return Finding("Topics", "missing", f"{'; '.join(different)}: see `retrail topics list`.")
    if absent:
        return Finding("Topics", "missing", f"no {', '.join(absent)}: run `retrail topics create`.")
    return Finding("Topics", "ok", f"all {len(found)} are as they should be")


def milvus(settings: "Settings") -> Finding:
    """Milvus."""
    from retrail_runtime.milvus import connect, require_search

    client = connect(settings)
    version = client.get_server_version()
    client.close()
    require_search(settings, version)
    return Finding("Milvus", "ok", f"{version} answers at {settings.milvus_uri}")


def model(settings: "Settings") -> Finding:
    """First model."""
    from trainer.model.encoder import Encoder

    encoder = Encoder.load(
        settings.model, pooling=settings.pooling, max_tokens=settings.index_max_tokens
    )
    encoder.encode_queries(["does it encode"])
    return Finding("First model", "ok", f"{settings.model}, {encoder.dimension} dimensions")


def registry(settings: "Settings") -> Finding:
    """Registry of models."""
    from trainer.registry.registry import Registry

    found = Registry.of(settings)
    found.require(writing=False)
    return Finding("Registry of models", "ok", found.name)


def judge(settings: "Settings") -> Finding:
    """Judge."""
    if settings.judge == "llm" and not (settings.judge_url and settings.judge_model):
        return Finding("Judge", "missing", "llm needs RETRAIL_JUDGE_URL and RETRAIL_JUDGE_MODEL.")
    return Finding("Judge", "ok", settings.judge)


def data_folder(settings: "Settings") -> Finding:
    """Data folder."""
    existing = next(
        path for path in (settings.data_dir, *settings.data_dir.parents) if path.exists()
    )
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            "Data folder",
            "missing",
            f"{existing} cannot be written. Set RETRAIL_DATA_DIR to a folder that this user can "
            "write.",
        )
    return Finding("Data folder", "ok", f"{settings.data_dir}, {_free(existing)} free")


def _free(folder: Path) -> str:
    import shutil

    return f"{shutil.disk_usage(folder).free / 2**30:.1f} GiB"


CHECKS: tuple[Check, ...] = (
    python,
    local_kafka,
    local_milvus,
    broker,
    topics,
    milvus,
    model,
    registry,
    judge,
    data_folder,
)
OPTIONAL = (local_kafka, local_milvus)
