"""Several processes that train one child: what one encodes, all see, and gradients are added up.

Each process has the whole model and the same batches. It encodes its share of a batch's texts; the
vectors are gathered, so every process sees the loss of the joint batch, with all its negatives, and
takes its own texts' part back through the model; then the gradients are added up. So loss and
gradients are those of one process, but for the order of sums, whatever the number of processes, and
all of them take equal steps.

Started by torchrun, on one machine or several::

    torchrun --nproc-per-node 2 -m retrail_cli train --run-id 3f2a
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")

BUCKET = 25_000_000
"""Numbers that are added up at once: 100 MB."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that train together; without arguments, one alone.

    Attributes:
        rank: 0 to ``size`` - 1. What is written, rank 0 writes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def dealt(self, items: Sequence[T]) -> Sequence[T]:
        """This process's share, dealt like cards."""
        return items[self.rank :: self.size]

    def gathered(self, own: Tensor, count: int) -> Tensor:
        """The rows of all processes, in the order that they had before they were dealt.

        Args:
            own: (this process's share of ``count``, dim).
            count: rows of all.
        """
        if self.size == 1:
            return own
        share = -(-count // self.size)
        padded = own.new_zeros(share, own.shape[1])
        padded[: len(own)] = own
        shares = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(shares, padded)
        rows = torch.stack(shares, dim=1).flatten(0, 1)
        return rows[:count]

    def add_up(self, parameters: Iterable[Tensor]) -> None:
        """Give every process the sum of all processes' gradients.

        A parameter that has none in any process, because the model does not use it, stays without.
        """
        if self.size == 1:
            return
        wanted = [parameter for parameter in parameters if parameter.requires_grad]
        used = torch.tensor([p.grad is not None for p in wanted], dtype=torch.int32)
        used = used.to(wanted[0].device)
        dist.all_reduce(used, op=dist.ReduceOp.MAX)
        for parameter, is_used in zip(wanted, used.tolist(), strict=True):
            if is_used and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in wanted if parameter.grad is not None]
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat)
            parts = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, summed in zip(bucket, parts, strict=True):
                gradient.copy_(summed.view_as(gradient))


ALONE = Processes()


def are_several() -> bool:
    """Whether torchrun started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "TORCHELASTIC_RUN_ID" in os.environ


@contextmanager
def joined() -> Iterator[Processes]:
    """This process among those that torchrun started with it; alone if it did not."""
    if not are_several():
        yield ALONE
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def _buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and size + gradient.numel() > BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.numel()
    if bucket:
        yield bucket
