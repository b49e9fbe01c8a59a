"""Writes the topics and rights in the chart, which its templates give to Strimzi.

Prefix, revision and retention are placeholders that the templates replace. A test holds the files
equal to the code, and what the chart renders equal to it for other settings.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from schemas.rights import ROLES, principal, rights
from schemas.settings import Settings
from schemas.topics import Topics, specs

FOLDER = Path(__file__).parent / "retrail" / "files"
HOUR_MS = 3_600_000
EVENTS_HOURS, PAIRS_HOURS = 7_777_777, 8_888_888
PLACEHOLDERS = Settings(
    topic_prefix="PREFIX_",
    revision="REVISION",
    replication=1,
    kafka_retention_hours=EVENTS_HOURS,
    pairs_retention_hours=PAIRS_HOURS,
)


def files() -> dict[Path, str]:
    """The content of each file."""
    single = Topics.of(PLACEHOLDERS).single
    topics = [
        {"name": spec.name, "single": spec.name in single, "config": spec.config()}
        for spec in specs(PLACEHOLDERS)
    ]
    users = [
        {
            "name": principal(PLACEHOLDERS, role),
            "rights": [asdict(right) for right in rights(PLACEHOLDERS, role)],
        }
        for role in ROLES
    ]
    return {FOLDER / "topics.json": _json(topics), FOLDER / "users.json": _json(users)}


def _json(items: Sequence[Mapping[str, object]]) -> str:
    text = "[\n" + ",\n".join(json.dumps(item) for item in items) + "\n]\n"
    text = text.replace(str(EVENTS_HOURS * HOUR_MS), "EVENTS_MS")
    return text.replace(str(PAIRS_HOURS * HOUR_MS), "PAIRS_MS")


if __name__ == "__main__":
    for path, content in files().items():
        path.write_text(content)
