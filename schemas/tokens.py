"""How long a reasoning is: the one rule that client and judge share."""

import re

_TOKEN = re.compile(r"\w+|[^\w\s]")


def count_tokens(text: str) -> int:
    """Number of runs of word characters and single other marks.

    >>> count_tokens("It doesn't help.")
    6
    """
    return len(_TOKEN.findall(text))
