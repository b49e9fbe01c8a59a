"""Several processes that train one child: they gather vectors and reduce gradients.

Each process has the whole model and the same batches. It encodes its shard of a batch's texts; the
vectors are gathered, so every process computes the loss of the joint batch, with all its negatives,
and the gradients of its own texts; then the gradients are summed. So loss and gradients are those
of one process, but for the order of sums, and all processes take equal steps.

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
"""Numbers that are reduced at once: 100 MB."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that train together; without arguments, a single one.

    Attributes:
        rank: 0 to ``size`` - 1. What is written, rank 0 writes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """This process's items: every ``size``-th."""
        return items[self.rank :: self.size]

    def all_gather(self, own: Tensor, count: int) -> Tensor:
        """The rows of all processes, in the order that they had before they were sharded.

        Args:
            own: (this process's shard of ``count``, dim).
            count: rows of all.
        """
        if self.size == 1:
            return own
        longest = -(-count // self.size)
        padded = own.new_zeros(longest, own.shape[1])
        padded[: len(own)] = own
        shards = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(shards, padded)
        rows = torch.stack(shards, dim=1).flatten(0, 1)
        return rows[:count]

    def all_reduce_gradients(self, parameters: Iterable[Tensor]) -> None:
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


SINGLE_PROCESS = Processes()


def are_several() -> bool:
    """Whether torchrun started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "TORCHELASTIC_RUN_ID" in os.environ


@contextmanager
def joined() -> Iterator[Processes]:
    """This process among those that torchrun started with it; alone if it did not."""
    if not are_several():
        yield SINGLE_PROCESS
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
