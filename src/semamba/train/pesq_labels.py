"""PESQ labels for the discriminator, computed in other processes while training goes on.

Letters: B batch, n samples.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import torch
from torch import Tensor

from semamba.metrics import intrusive
from semamba.metrics.pool import new_pool

LOWEST, RANGE = 1.0, 3.5  # PESQ of 1 to 4.5 becomes a label of 0 to 1
PENDING = 4  # batches that wait for their labels at most; a slower machine leaves some batches out


@dataclass
class Pending:
    """Waves (B, n) on the device of training, and their scores as they arrive."""

    clean: Tensor
    enhanced: Tensor
    scores: list[Future[float]]

    @property
    def ready(self) -> bool:
        return all(future.done() for future in self.scores)


class PesqLabels:
    """A queue of batches whose labels are being computed.

    The labels of step k arrive at step k + 1 at the earliest: the batch is kept, and the discriminator learns from it
    when they are there. The training step never waits for them. Where PESQ is slower than training, at most `PENDING`
    batches are kept and new ones are passed over.
    """

    def __init__(self, jobs: int) -> None:
        intrusive.require_extra()
        self.jobs, self.pending = jobs, deque[Pending]()
        self._pool = new_pool(jobs)

    def ask(self, clean: Tensor, enhanced: Tensor) -> None:
        """Start scoring a batch (B, n) unless too many wait already."""
        if len(self.pending) >= PENDING:
            return
        waves = zip(clean.float().cpu().numpy(), enhanced.float().cpu().numpy(), strict=True)
        self.pending.append(Pending(clean, enhanced, [self._submit(*pair) for pair in waves]))

    @property
    def ready(self) -> bool:
        """Whether the oldest batch has its labels."""
        return bool(self.pending) and self.pending[0].ready

    def take(self) -> tuple[Tensor, Tensor, Tensor]:
        """Clean and enhanced waves (B, n) of the oldest batch and its labels (B,); waits for those that are missing.

        The label of an item that PESQ cannot score, such as a silent one, is NaN. When a worker dies (the C code of
        PESQ can crash), the labels under way are lost and become NaN too.
        """
        oldest = self.pending.popleft()
        labels = [_label(future) for future in oldest.scores]
        return oldest.clean, oldest.enhanced, torch.tensor(labels, device=oldest.clean.device)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, clean: intrusive.Signal, enhanced: intrusive.Signal) -> Future[float]:
        try:
            return self._pool.submit(intrusive.pesq_wb, clean, enhanced)
        except BrokenProcessPool:
            self.close()
            self._pool = new_pool(self.jobs)
            return self._pool.submit(intrusive.pesq_wb, clean, enhanced)


def _label(score: Future[float]) -> float:
    try:
        return (score.result() - LOWEST) / RANGE
    except (intrusive.MetricError, BrokenProcessPool):
        return float("nan")


def pesq_of(label: Tensor) -> Tensor:
    """The inverse of the scale of labels."""
    return LOWEST + RANGE * label
