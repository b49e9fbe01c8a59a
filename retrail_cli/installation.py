"""``retrail topics`` and ``retrail settings``."""

from typing import Annotated, Any

import typer

from retrail_cli.output import print_table

COLUMNS = ("topic", "partitions", "retention", "state")

topics = typer.Typer(
    help="Create the topics, or compare them with what Retrail needs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@topics.command()
def create() -> None:
    """Create every topic that is absent; safe to repeat.

    A topic that exists with other partitions, retention, compaction, timestamps or size limit is
    an error that names all differences.
    """
    from deploy.topics import ensure, retention
    from schemas.settings import load
    from schemas.topics import specs

    settings = load()
    states = dict(ensure(settings))
    rows = (
        (spec.name, str(spec.partitions), retention(spec), states[spec.name])
        for spec in specs(settings)
    )
    print_table(COLUMNS, rows)


@topics.command("list")
def show() -> None:
    """Show every topic, and how it differs from what Retrail needs."""
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


def settings(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON array, one object a setting.")
    ] = False,
) -> None:
    """Print every setting: its value, its default and what it means.

    Values come from RETRAIL_… variables, then from the file that RETRAIL_ENV_FILE names, then from
    the defaults. Secrets are masked. A star marks what was set.

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
