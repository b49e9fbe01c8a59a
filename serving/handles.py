"""Which trajectory a call belongs to, without a memory: handles and names.

A *handle* is a trajectory's id: 11 characters, and 11 of their HMAC for one *principal*, the token
of the caller. So a replica knows the handles of the others, and the handle of one principal is
refused from another. A handle is drawn, or derived from a *name* that the client chose, such as the
id of its task, or from the id of an MCP session.
"""

import hmac
import re
import secrets
from base64 import b64encode
from dataclasses import dataclass
from typing import Literal

from serving.problems import TRAJECTORY_HEADER, Failure, RefusedError

NAME = r"^[A-Za-z0-9._:~-]{1,160}$"
"""Pattern of names that a client may send; handles match it."""
SUFFIX_CHARS = 24
"""Length of what :meth:`Handles.shown` appends to a document's id."""

DEFAULT_AGENT = "agent"
"""Name of agents that give none."""

Outcome = Literal["correct", "incorrect", "unknown"]

_BYTES = 8
_HANDLE = re.compile(r"[A-Za-z0-9_:]{11}\.[A-Za-z0-9_:]{11}")
_RANDOM = re.compile(
    r"[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.I
)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")

FOREIGN = Failure(
    400,
    "Unknown trajectory",
    "This trajectory id was not given to this caller, or by a server with another "
    "RETRAIL_SERVE_SECRET. Leave it out to begin a new trajectory.",
)
MALFORMED = Failure(
    400,
    "Invalid trajectory",
    f"The header {TRAJECTORY_HEADER} or the trajectory_id does not match {NAME}.",
)
GUESSABLE = Failure(
    400,
    "Guessable trajectory",
    "Without tokens, other callers could use this name too. Send a random UUID (version 4) or a "
    "W3C trace id, leave the trajectory out to get an id, or give the server tokens "
    "(RETRAIL_SERVE_TOKEN).",
)


@dataclass(frozen=True, slots=True)
class Agent:
    """Who acts; events carry all three."""

    name: str
    model: str = ""
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """The agent of a call, and the trajectory that the call belongs to.

    ``who``: what shares of the server are counted by. ``sees``: the tenant whose documents the call
    finds, beside everyone's; ``None``: all documents.
    """

    agent: Agent
    trajectory_id: str
    who: object = ""
    sees: str | None = None


class Handles:
    """Makes and checks handles.

    Args:
        secret: shared by the replicas, and kept over restarts.

    Example:
        >>> handles = Handles(b"secret")
        >>> handles.named("ann", "task-1") == handles.named("ann", "task-1")
        True
        >>> handles.named("ann", "task-1") == handles.named("bob", "task-1")
        False
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def drawn(self, principal: str) -> str:
        """A new trajectory's handle."""
        return self._handle(principal, _text(secrets.token_bytes(_BYTES)))

    def named(self, principal: str, name: str, kind: str = "name") -> str:
        """The handle of a principal's name; names of another ``kind`` have others."""
        return self._handle(principal, self._mac(kind, principal, name))

    def given(self, principal: str, text: str) -> str:
        """The handle of what a client sent: a handle, or a name.

        Args:
            principal: empty: the caller has no token, so anybody may know its names.

        Raises:
            RefusedError: the handle is of another principal or secret, or the name is malformed, or
                it is guessable and the caller has no token.
        """
        if self.is_own(principal, text):
            return text
        if _HANDLE.fullmatch(text):
            raise RefusedError(FOREIGN)
        if not re.fullmatch(NAME, text):
            raise RefusedError(MALFORMED)
        if not principal and not _RANDOM.fullmatch(text):
            raise RefusedError(GUESSABLE)
        return self.named(principal, text)

    def traced(self, principal: str, traceparent: str | None) -> str | None:
        """The handle of a W3C trace; ``None`` for a header that names none."""
        found = _TRACEPARENT.fullmatch(traceparent or "")
        return found and self.named(principal, found.group(1), "trace")

    def is_own(self, principal: str, text: str) -> bool:
        """Whether a text is a handle of this principal."""
        if not _HANDLE.fullmatch(text):
            return False
        return hmac.compare_digest(self._handle(principal, text.partition(".")[0]), text)

    def opened(self, principal: str, shown: str) -> tuple[str, str | None]:
        """Document id and handle of an id that :meth:`shown` made; any other id as it is."""
        doc_id, handle = shown[:-SUFFIX_CHARS], shown[1 - SUFFIX_CHARS :]
        if doc_id and shown[-SUFFIX_CHARS] == "~" and self.is_own(principal, handle):
            return doc_id, handle
        return shown, None

    @staticmethod
    def shown(doc_id: str, handle: str) -> str:
        """A document's id with the handle of the trajectory that found it."""
        return f"{doc_id}~{handle}"

    def _handle(self, principal: str, text: str) -> str:
        return f"{text}.{self._mac('handle', principal, text)}"

    def _mac(self, kind: str, principal: str, text: str) -> str:
        message = "\0".join((kind, principal, text)).encode()
        return _text(hmac.digest(self._secret, message, "sha256")[:_BYTES])


def _text(eight: bytes) -> str:
    """Eight bytes as 11 letters, digits, ``_`` and ``:``; never ``-``, which begins options."""
    return b64encode(eight, b"_:").decode().rstrip("=")
