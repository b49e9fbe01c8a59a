"""What of an agent's own words leaves the process."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

TextPolicy = Literal["send", "withhold"] | Callable[[str], str | None]
"""``"send"``, ``"withhold"``, or a function that gives the redacted text (nothing: withheld)."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The text that may be sent; ``changed`` if that is not what the agent said.

    ``failure`` names the class of the hook's exception. Its message may quote the text, so it is
    not kept.
    """

    text: str | None
    changed: bool
    failure: str | None = None


def shown(text: str, policy: TextPolicy) -> Shown:
    """Apply a policy to a text; a hook that fails withholds it.

    >>> shown("my name is Ann", lambda text: text.replace("Ann", "…")).text
    'my name is …'
    """
    if policy == "send":
        return Shown(text, changed=False)
    if not callable(policy):
        return Shown(None, changed=True)
    try:
        result = policy(text)
    except Exception as error:
        return Shown(None, changed=True, failure=type(error).__name__)
    if result is not None and not isinstance(result, str):
        return Shown(None, changed=True, failure=f"returned {type(result).__name__}")
    return Shown(result, changed=result != text)
