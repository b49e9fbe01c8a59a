"""``retrail doctor``, ``retrail settings`` and ``retrail topics``."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from retrail_cli.output import print_state, print_table
from retrail_cli.records import recent

if TYPE_CHECKING:
    from schemas.settings import Settings

Check = Callable[["Settings"], str]
"""Returns what it found; raises a ``RetrailError`` whose message says what to do."""

RECENT = 1_000
"""Requests of each partition of otlp_spans that `retrail doctor --otlp topic` reads."""


def doctor(
    otlp: Annotated[
        str | None,
        typer.Option(
            "--otlp",
            metavar="FILE|topic",
            help="Show instead what is understood of traces: of a file with one trace request of "
            "OTLP a line, or of the last requests on the topic otlp_spans.",
            show_default=False,
        ),
    ] = None,
    load_model: Annotated[
        bool, typer.Option("--model", help="Also load the first model and encode a text with it.")
    ] = False,
) -> None:
    """Check that everything the workers and commands need is there.

    Checks Java, Kafka, topics, codecs, Milvus, the model, the model registry, the judge and the
    data folder. Each line shows what was found or what to do. Exit status 1: a requirement is
    missing. Requirements of `retrail up` alone are optional.

    \b
    Examples:
      RETRAIL_KAFKA_BOOTSTRAP=k1:9092 retrail doctor
      retrail doctor --otlp spans.jsonl
    """
    from schemas.settings import load

    settings = load()
    if otlp is not None:
        _show_traces(settings, otlp)
        return
    states: dict[str, str] = {}
    checks = CHECKS | {MODEL: model} if load_model else CHECKS
    for what, check in checks.items():
        if what == "Topics" and states["Kafka"] != "ok":
            state, found = "missing", "cannot be checked without Kafka."
        else:
            state, found = _run(check, settings)
        states[what] = "optional" if state == "missing" and what in OPTIONAL else state
        print_state(states[what], f"{what}: {found}")
    if "missing" in states.values():
        raise typer.Exit(1)


def _show_traces(settings: "Settings", where: str) -> None:
    from streams.importing.tools import ToolMap
    from streams.spans.understanding import understood

    bodies = _recent_requests(settings) if where == "topic" else _requests_of(Path(where))
    for line in understood(bodies, ToolMap.load(settings.otlp_tools)):
        typer.echo(line)


def _requests_of(path: Path) -> Iterator[bytes]:
    import orjson

    from streams.importing.files import files_of, records_of

    for file in files_of([path]):
        for _, value in records_of(file):
            yield orjson.dumps(value) if isinstance(value, dict) else b""


def _recent_requests(settings: "Settings") -> Iterator[bytes]:
    from schemas.topics import Topics

    for record in recent(settings, Topics.of(settings).otlp_spans, RECENT):
        yield record.value or b""


def _run(check: Check, settings: "Settings") -> tuple[str, str]:
    """State and text of a check; a library that is not installed is optional."""
    from schemas.errors import RetrailError

    try:
        return "ok", check(settings)
    except RetrailError as error:
        return "missing", str(error)
    except ModuleNotFoundError as error:
        return "optional", f"{error.name} is not installed: pip install 'retrail-server[all]'"


def python(settings: "Settings") -> str:
    return f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})"


def names(settings: "Settings") -> str:
    from schemas.errors import ConfigurationError
    from schemas.settings import mistakes, stopped_stack

    if found := mistakes(os.environ) + stopped_stack(os.environ):
        raise ConfigurationError(" ".join(found))
    return f"{len(settings.model_fields_set)} set"


def local_kafka(settings: "Settings") -> str:
    from deploy import artifacts, kafka

    found, folder = kafka.find_java(), artifacts.cache_folder()
    fetched = not artifacts.missing(artifacts.kafka_artifacts(), folder)
    where = f"in {folder}" if fetched else "fetched at the first start"
    return f"{artifacts.kafka_version()}, {where}; {found}"


def codecs(settings: "Settings") -> str:
    from streams.loop.faust_private import CODECS, require_codecs

    require_codecs()
    return f"{', '.join(CODECS)} can be read"


def local_milvus(settings: "Settings") -> str:
    import milvus_lite  # noqa: F401

    return "installed"


def broker(settings: "Settings") -> str:
    from retrail_runtime.kafka import require_broker

    require_broker(settings, [], timeout=5.0)
    return f"answers at {settings.kafka_bootstrap}"


def topics_exist(settings: "Settings") -> str:
    from deploy.topics import survey
    from schemas.errors import TopicMismatchError

    found = survey(settings)
    absent = [spec.name for spec, actual, _ in found if actual is None]
    different = [str(one) for _, _, differences in found for one in differences]
    if different:
        raise TopicMismatchError(f"{'; '.join(different)}: see `retrail topics list`.")
    if absent:
        raise TopicMismatchError(f"no {', '.join(absent)}: run `retrail topics create`.")
    return f"all {len(found)} are ok"


def milvus(settings: "Settings") -> str:
    from retrail_runtime.milvus import connect, require_search

    client = connect(settings)
    version = client.get_server_version()
    client.close()
    require_search(settings, version)
    return f"{version} answers at {settings.milvus_uri}"


def model_there(settings: "Settings") -> str:
    from consumers.releases import read, unused_model
    from retrail_runtime.kafka import require_broker
    from schemas.errors import BrokerUnavailableError, TopicMismatchError
    from schemas.topics import Topics
    from trainer.model.location import locate

    try:
        require_broker(settings, [Topics.of(settings).retriever_releases], timeout=1.0)
        if unused := unused_model(settings, read(settings)):
            return unused
    except (BrokerUnavailableError, TopicMismatchError):
        pass  # Other checks report it; then there is no release yet.

    return f"{settings.model} in {locate(settings.model)}; --model loads it"


def model(settings: "Settings") -> str:
    from consumers.first_release import load_model

    encoder = load_model(settings)
    encoder.encode_queries(["does it encode"])
    return f"{settings.model}, {encoder.dimension} dimensions"


def registry(settings: "Settings") -> str:
    from trainer.registry.registry import Registry

    found = Registry.of(settings)
    found.require(writing=False)
    return found.name


def judge(settings: "Settings") -> str:
    from schemas.errors import ConfigurationError

    if settings.judge == "llm" and not (settings.judge_url and settings.judge_model):
        raise ConfigurationError("llm needs RETRAIL_JUDGE_URL and RETRAIL_JUDGE_MODEL.")
    return settings.judge


def data_folder(settings: "Settings") -> str:
    import shutil

    from schemas.errors import ConfigurationError

    folder = settings.data_dir
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"{existing} cannot be written. Set RETRAIL_DATA_DIR to a folder that this user can "
            "write."
        )
    return f"{folder}, {shutil.disk_usage(existing).free / 2**30:.1f} GiB free"


MODEL = "First model"
CHECKS: dict[str, Check] = {
    "Python": python,
    "Settings": names,
    "Apache Kafka, for `retrail up`": local_kafka,
    "Milvus Lite, for `retrail up`": local_milvus,
    "Kafka": broker,
    "Topics": topics_exist,
    "Codecs of producers": codecs,
    "Milvus": milvus,
    MODEL: model_there,
    "Registry of models": registry,
    "Judge": judge,
    "Data folder": data_folder,
}
OPTIONAL = ("Apache Kafka, for `retrail up`", "Milvus Lite, for `retrail up`")


COLUMNS = ("topic", "partitions", "retention", "state")

topics = typer.Typer(help="Create and check topics.", no_args_is_help=True, rich_markup_mode=None)


@topics.command("create")
def create_topics() -> None:
    """Create every missing topic; idempotent.

    On a cluster of three brokers or more topics have three replicas, of which two must be in sync
    for a write; RETRAIL_REPLICATION sets another number.

    A topic that exists with other partitions, retention, compaction, timestamps or size limit is
    an error, which lists all differences.
    """
    from deploy.topics import brokers, ensure, replication_warning, retention
    from schemas.settings import load
    from schemas.topics import specs

    settings = load()
    if warning := replication_warning(settings, brokers(settings)):
        typer.echo(f"WARNING: {warning}", err=True)
    states = dict(ensure(settings))
    rows = (
        (spec.name, str(spec.partitions), retention(spec), states[spec.name])
        for spec in specs(settings)
    )
    print_table(COLUMNS, rows)


@topics.command("list")
def list_topics() -> None:
    """List every topic, and its differences from what Retrail needs."""
    from deploy.topics import retention, survey
    from schemas.settings import load

    rows = []
    for spec, actual, differences in survey(load()):
        if actual is None:
            state = "absent: retrail topics create"
        elif differences:
            state = "\n".join(
                f"{found.what} is {found.actual}, should be {found.wanted}" for found in differences
            )
        else:
            state = "ok"
        partitions = actual["partitions"] if actual else spec.partitions
        rows.append((spec.name, str(partitions), retention(spec), state))
    print_table(COLUMNS, rows)


@topics.command("acls")
def print_acls(
    form: Annotated[
        Literal["kafka", "strimzi"],
        typer.Option(
            "--format", help="kafka: commands of kafka-acls.sh; strimzi: KafkaUser resources."
        ),
    ] = "kafka",
) -> None:
    """Print the rights that each role needs on Kafka, and no other.

    Topics and groups are those of RETRAIL_TOPIC_PREFIX and RETRAIL_REVISION. docs/security.md
    explains the roles.

    \b
    Example:
      retrail topics acls --format strimzi > users.yaml
    """
    from deploy.acls import rendered
    from schemas.settings import load

    typer.echo(rendered(load(), form), nl=False)


def settings(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON array, one object per setting.")
    ] = False,
) -> None:
    """Print every setting: its value, default and meaning.

    RETRAIL_… environment variables override the file at RETRAIL_ENV_FILE, which overrides the
    defaults. Secrets are masked. A star marks settings that are set.

    \b
    Examples:
      retrail settings
      RETRAIL_ENV_FILE=retrail.env retrail settings --json
    """
    import json

    rows = _settings()
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    group = ""
    for row in rows:
        if row["group"] != group:
            group = row["group"]
            typer.secho(f"\n{group}", bold=True)
        typer.echo(f"{'*' if row['set'] else ' '} {row['name']} = {_text(row['value'])}")
        default = f" (default: {_text(row['default'])})" if row["set"] else ""
        typer.echo(f"      {row['description']}{default}")


def _settings() -> list[dict[str, Any]]:
    """Every setting as plain values, in the order of the classes that group them."""
    from pydantic import BaseModel

    from schemas.settings import Settings, load

    loaded = load()
    values = loaded.model_dump(mode="json")
    defaults = Settings.model_construct().model_dump(mode="json")
    return [
        {
            "name": f"RETRAIL_{name.upper()}",
            "value": values[name],
            "default": defaults[name],
            "set": name in loaded.model_fields_set,
            "description": field.description,
            "group": (group.__doc__ or "").partition("\n")[0].strip(".").replace("``", ""),
        }
        for group in Settings.__bases__
        if issubclass(group, BaseModel)
        for name, field in group.model_fields.items()
    ]


def _text(value: object) -> str:
    return "(none)" if value in (None, "") else str(value)
