"""The audit log: who did what and when, as JSON lines in ``audit.jsonl`` of the data directory."""

import getpass
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal

import orjson
import structlog

from retrail_runtime.files import private_folder
from schemas.settings import Settings

FILE = "audit.jsonl"

Action = Literal["promote", "rollback", "dlq replay", "dlq skip", "erase", "token reload"]

log = structlog.get_logger("retrail.audit")


def write(settings: Settings, action: Action, **what: object) -> None:
    """Append a line about an action that was done.

    The file is opened for each line, so it can be rotated by renaming it. If it cannot be written,
    the line is an error in the process's log.

    Args:
        what: details; no identifiers of agents or tenants, which may have to be erased.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"at": now, "who": _who(settings), "action": action} | what
    path = settings.data_dir / FILE
    try:
        private_folder(path.parent)
        # Unbuffered: one call a line, so that lines of several processes do not mix.
        with open(path, "ab", 0, opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(orjson.dumps(line) + b"\n")
            os.fsync(file.fileno())
    except OSError as error:
        log.error("the audit log cannot be written", file=str(path), reason=str(error), line=line)


def _who(settings: Settings) -> dict[str, str]:
    """The user of this process, its machine, and its user on Kafka if it has one."""
    user = str(os.getuid())
    # A container's user may have no name.
    with suppress(KeyError, OSError):
        user = getpass.getuser()
    kafka = settings.kafka_sasl_username
    return {"user": user, "host": socket.gethostname()} | ({"kafka": kafka} if kafka else {})
