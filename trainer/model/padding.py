"""Which texts are encoded together: those of one padded length.

So a text's vector does not depend on the others, and next to nothing is computed for padding.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

PAD_TO = 8
"""Texts are padded to a multiple of this many tokens."""

_MOST_ON_A_CORE = 4_096
"""Tokens at once: with more, what lies between two layers leaves a CPU's caches."""

_LEAST_ON_A_CORE = 512
"""With so few a layer still runs at its full speed."""


def padded(length: int, longest: int) -> int:
    """Next multiple of :data:`PAD_TO`, but not above ``longest``.

    >>> padded(17, 256), padded(15, 256), padded(250, 250)
    (24, 16, 250)
    """
    return min(-(-length // PAD_TO) * PAD_TO, longest)


def on_a_core(tokens: int, cores: int) -> int:
    """How many of ``tokens`` to encode at once on one of ``cores``, so that all end together.

    >>> on_a_core(1_000_000, 2), on_a_core(16_384, 2), on_a_core(20, 2)
    (4096, 2048, 512)
    """
    return min(_MOST_ON_A_CORE, max(_LEAST_ON_A_CORE, tokens // (4 * cores)))


def alike(lengths: Sequence[int], batch: int, tokens: int | None) -> Iterator[list[int]]:
    """Indices of texts of one padded length, longest first.

    Args:
        lengths: padded ones.
        batch: at most so many texts at a time.
        tokens: and at most so many tokens, unless one text alone has more.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, length in enumerate(lengths):
        by_length[length].append(index)
    for length, indices in sorted(by_length.items(), reverse=True):
        size = batch if tokens is None else min(batch, max(1, tokens // length))
        for start in range(0, len(indices), size):
            yield indices[start : start + size]
