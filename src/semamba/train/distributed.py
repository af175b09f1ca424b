"""Several processes, one run: the ranks that `torchrun` starts, and what they tell each other.

The nets are not wrapped in DistributedDataParallel. The step computes gradients with `torch.autograd.grad`, perhaps in
threads and in micro-batches, for two nets in turn; the wrapper hangs on hooks of `backward` and would see none of it.
So the step hands its summed gradients to `Ranks.average`, which is one collective for all of them. That gives up the
overlap of communication with the backward pass. For nets of 0.1 to 9 million weights that is milliseconds a step.

All ranks hold the same weights, optimisers and averages, since they apply the same gradients to the same start. Each
takes its own rows of the one global batch, so `train.batch_size` and the losses mean the same with any number of ranks.
What differs is what looks at a whole batch: statistics of batch normalisation are those of a rank's rows (their running
means are averaged), and dropout draws from a seed per rank. Rank 0 alone validates, logs and writes files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from semamba.errors import SemambaError

PATIENCE = timedelta(hours=1)  # the other ranks wait at their next step while rank 0 validates


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run; with one of them every method returns at once."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        return self.rank, self.world

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace float tensors by their means over the ranks. One collective; NaN anywhere becomes NaN everywhere."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        self._together(lambda: distributed.all_reduce(flat))
        flat /= self.world
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def highest(self, *values: float) -> list[float]:
        """The largest value of any rank, for each of the values."""
        if self.world == 1:
            return list(values)
        both = torch.tensor(values, dtype=torch.float64, device=self.device)
        self._together(lambda: distributed.all_reduce(both, distributed.ReduceOp.MAX))
        return both.tolist()

    def all(self, condition: bool) -> bool:
        """Whether the condition holds on every rank."""
        return not self.highest(float(not condition))[0]

    def gather(self, rows: Tensor) -> Tensor:
        """(b, n) of every rank -> (world * b, n), in the order of ranks."""
        if self.world == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.world)]
        self._together(lambda: distributed.all_gather(parts, rows.contiguous()))
        return torch.cat(parts)

    def own(self, rows: Tensor) -> Tensor:
        """The inverse of `gather`: this rank's rows of (world * b, n)."""
        return rows.chunk(self.world)[self.rank]

    def leave(self) -> None:
        if self.world > 1:
            distributed.destroy_process_group()

    def _together(self, collective: Callable[[], object]) -> None:
        try:
            collective()
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:80]
            raise SemambaError(
                f"process {self.rank} of {self.world} lost another one ({reason}); "
                "the last checkpoint is kept: start the same command again to go on from it"
            ) from None


def join(device: str) -> Ranks:
    """This process alone, or the rank that torchrun's environment says, connected (gloo for CPUs, nccl for GPUs)."""
    chosen, world = choose_device(device), int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Ranks(chosen)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if chosen.type == "cuda":
        if local >= torch.cuda.device_count():
            raise SemambaError(
                f"this machine has {torch.cuda.device_count()} GPUs: start torchrun with at most as many processes "
                "(--nproc-per-node), or set train.device=cpu"
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    try:
        distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise SemambaError(f"{world} processes did not find each other ({reason}); start them by torchrun") from None
    return Ranks(chosen, distributed.get_rank(), world)


def choose_device(name: str) -> torch.device:
    """'auto' is the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SemambaError(f"train.device '{name}' is not a device of torch; use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SemambaError("train.device is 'cuda', but torch finds no GPU; use auto or cpu")
    return device
