"""Batches of texts to encode, and their distribution over CPU cores.

A batch has texts of one padded length, so a text's vector does not depend on the other texts, and
little time is spent on padding. On a CPU each core encodes a batch of its own: sharing every
operation between torch's threads costs a synchronisation per operation.
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
"""Padded tokens of a batch on a GPU; fewer if memory is insufficient."""

_MOST_TOKENS_ON_A_CORE = 4_096
"""With more, the activations between two layers exceed a CPU's caches."""

_LEAST_TOKENS_ON_A_CORE = 512
"""With fewer, a layer is slower per token."""


def padded_length(length: int, longest: int) -> int:
    """Next multiple of :data:`PAD_TO`, but not above ``longest``.

    >>> padded_length(17, 256), padded_length(15, 256), padded_length(250, 250)
    (24, 16, 250)
    """
    return min(-(-length // PAD_TO) * PAD_TO, longest)


def tokens_per_core(tokens: int, cores: int) -> int:
    """Batch size in tokens for one of ``cores``, so that all finish at about the same time.

    >>> tokens_per_core(1_000_000, 2), tokens_per_core(16_384, 2), tokens_per_core(20, 2)
    (4096, 2048, 512)
    """
    return min(_MOST_TOKENS_ON_A_CORE, max(_LEAST_TOKENS_ON_A_CORE, tokens // (4 * cores)))


def length_buckets(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Batches of indices of texts with one padded length, longest first.

    Args:
        lengths: padded length of each text.
        tokens: maximum padded tokens of a batch, unless it has a single text.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, length in enumerate(lengths):
        by_length[length].append(index)
    for length, indices in sorted(by_length.items(), reverse=True):
        size = max(1, tokens // length)
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python ran out of memory; on a CPU torch raises a plain RuntimeError.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …"))
    True
    """
    return isinstance(
        error, torch.OutOfMemoryError | MemoryError
    ) or "can't allocate memory" in str(error)


def parallel_map(
    work: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[tuple[Item, Result], None, None]:
    """Items with the results of ``work``, in order of completion.

    The number of worker threads is torch's number of threads; in each, torch uses one core.

    Args:
        work: releases the GIL most of the time, as torch does.
        items: the longest first, to balance the cores.

    Raises:
        Exception: from ``work``; pending items are dropped.
    """
    cores, to_come = torch.get_num_threads(), iter(items)
    with ThreadPoolExecutor(cores, thread_name_prefix="core") as pool:
        _limit_to_one_core(pool, cores)
        # Twice as many are submitted, so that no core idles until a result is taken.
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
        # The first use initialises a thread's setting, and would otherwise undo this later.
        torch.get_num_threads()
        torch.set_num_threads(1)
        all_there.wait()

    list(pool.map(limit, range(cores)))
    # The number that was set last is torch's default for new threads.
    torch.set_num_threads(cores)
