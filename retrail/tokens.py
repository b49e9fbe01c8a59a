"""How long a reasoning is: the rule of ``schemas.tokens``, repeated so that the client is alone."""

import re

_TOKEN = re.compile(r"\w+|[^\w\s]")


def count_tokens(text: str) -> int:
    """Number of runs of word characters and single other marks.

    >>> count_tokens("It doesn't help.")
    6
    """
    return sum(1 for _ in _TOKEN.finditer(text))
