"""What of an agent's own words leaves the process, and how their length is counted."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

TextPolicy = Literal["send", "withhold"] | Callable[[str], str | None]
"""``"send"``, ``"withhold"``, or a function that returns the redacted text (none: withheld)."""

_TOKEN = re.compile(r"\w+|[^\w\s]")


def count_tokens(text: str) -> int:
    """Number of runs of word characters and single other marks: the rule of ``schemas.tokens``.

    It is repeated here because the client imports nothing else of Retrail.

    >>> count_tokens("It doesn't help.")
    6
    """
    return sum(1 for _ in _TOKEN.finditer(text))


@dataclass(frozen=True, slots=True)
class Redacted:
    """The text that may be sent; ``changed`` if that is not what the agent wrote.

    ``failure`` names the class of the hook's exception. Its message may quote the text, so it is
    not kept.
    """

    text: str | None
    changed: bool
    failure: str | None = None


def redact(text: str, policy: TextPolicy) -> Redacted:
    """Apply a policy to a text; a hook that fails withholds it.

    >>> redact("my name is Ann", lambda text: text.replace("Ann", "…")).text
    'my name is …'
    """
    if policy == "send":
        return Redacted(text, changed=False)
    if not callable(policy):
        return Redacted(None, changed=True)
    try:
        result = policy(text)
    except Exception as error:
        return Redacted(None, changed=True, failure=type(error).__name__)
    if result is not None and not isinstance(result, str):
        return Redacted(None, changed=True, failure=f"returned {type(result).__name__}")
    return Redacted(result, changed=result != text)
