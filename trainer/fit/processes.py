"""Data-parallel training of one child: processes gather vectors and all-reduce gradients.

Each process has the whole model and the same batches, and encodes its shard of a batch's texts. The
vectors are gathered, so every process computes the loss of the whole batch with all its negatives,
and the gradients of its own texts; then the gradients are summed. Loss and gradients equal those of
a single process except for the order of sums, and all processes take equal steps.

torchrun starts the processes, on one machine or several::

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
"""Gradient elements per all-reduce: 100 MB."""


@dataclass(frozen=True, slots=True)
class Processes:
    """The rank of this process and the number of processes; by default a single one.

    Attributes:
        rank: 0 to ``size`` - 1; only rank 0 writes.
        size: number of processes.
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
        """The rows of all processes, in the order before sharding.

        Args:
            own: (rows of this process's shard, dim).
            count: rows of all processes.

        Returns:
            (count, dim).
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
        """Replace the gradients in every process by their sum over all processes.

        A parameter without a gradient in all processes keeps none: the model does not use it.
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


@contextmanager
def joined() -> Iterator[Processes]:
    """The process group that torchrun started; a single process without torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "TORCHELASTIC_RUN_ID" not in os.environ:
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
