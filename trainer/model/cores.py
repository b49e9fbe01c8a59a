"""Work on a CPU side by side, one core for each piece.

Where torch's threads share every operation, all of them wait for the slowest some hundred times in
a batch of texts. With a batch for each core none waits before its batch is done.
"""

import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(
    work: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[tuple[Item, Result], None, None]:
    """Items with what ``work`` makes of them, in the order in which they are done.

    As many are in work as torch has threads here, and torch's operations on each use one.

    Args:
        work: lets go of the interpreter's lock most of the time, as torch does.
        items: the longest first, so that no core is left with one at the end.

    Raises:
        Exception: what ``work`` raised; items that are not in work yet are let be.
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
