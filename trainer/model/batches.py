"""Which texts are encoded together, and on how many cores.

Texts of one padded length are encoded together, so a text's vector does not depend on the others,
and next to nothing is computed for padding. On a CPU each core has a batch of its own: where
torch's threads share every operation, all of them wait for the slowest some hundred times in a
batch.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

PAD_TO = 8
"""Texts are padded to a multiple of this many tokens."""

TOKENS_ON_A_GPU = 32_768
"""Padded tokens at once on anything but a CPU; fewer if memory does not suffice."""

_MOST_TOKENS_ON_A_CORE = 4_096
"""With more, what lies between two layers leaves a CPU's caches."""

_LEAST_TOKENS_ON_A_CORE = 512
"""With so few a layer still runs at its full speed."""


def padded_length(length: int, longest: int) -> int:
    """Next multiple of :data:`PAD_TO`, but not above ``longest``.

    >>> padded_length(17, 256), padded_length(15, 256), padded_length(250, 250)
    (24, 16, 250)
    """
    return min(-(-length // PAD_TO) * PAD_TO, longest)


def tokens_per_core(tokens: int, cores: int) -> int:
    """How many of ``tokens`` to encode at once on one of ``cores``, so that all end together.

    >>> tokens_per_core(1_000_000, 2), tokens_per_core(16_384, 2), tokens_per_core(20, 2)
    (4096, 2048, 512)
    """
    return min(_MOST_TOKENS_ON_A_CORE, max(_LEAST_TOKENS_ON_A_CORE, tokens // (4 * cores)))


def length_buckets(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Indices of texts of one padded length, longest first.

    Args:
        lengths: padded ones.
        tokens: at most so many a batch, unless one text alone has more.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, length in enumerate(lengths):
        by_length[length].append(index)
    for length, indices in sorted(by_length.items(), reverse=True):
        size = max(1, tokens // length)
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python ran out of memory; on a CPU only torch's message says so.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …"))
    True
    """
    return isinstance(
        error, torch.OutOfMemoryError | MemoryError
    ) or "can't allocate memory" in str(error)


def parallel_map(
    work: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[tuple[Item, Result], None, None]:
    """Items with what ``work`` makes of them, in the order in which they are done.

    As many are in work as torch has threads here, and torch's operations on each use one.

    Args:
        work: releases the interpreter's lock most of the time, as torch does.
        items: the longest first, so that no core is left with one at the end.

    Raises:
        Exception: what ``work`` raised; items that are not in work yet are dropped.
    """
    cores, to_come = torch.get_num_threads(), iter(items)
    with ThreadPoolExecutor(cores, thread_name_prefix="core") as pool:
        _limit_to_one_core(pool, cores)
        # As many again wait, so that no core does until a result is taken.
        in_work = {pool.submit(work, item): item for item in islice(to_come, 2 * cores)}
        try:
            while in_work:
                done, _ = wait(in_work, return_when=FIRST_COMPLETED)
                for future in done:
                    in_work |= {pool.submit(work, item): item for item in islice(to_come, 1)}
                    yield in_work.pop(future), future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _limit_to_one_core(pool: ThreadPoolExecutor, cores: int) -> None:
    all_there = threading.Barrier(cores)

    def limit(_: int) -> None:
        # torch sets a thread's number at its first use, which would come later and undo this.
        torch.get_num_threads()
        torch.set_num_threads(1)
        all_there.wait()

    list(pool.map(limit, range(cores)))
    # torch keeps the number that was set last for threads that are yet to come.
    torch.set_num_threads(cores)
