"""What the process that asks and the process that measures tell each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Spec:
    """One measurement."""

    subject: str
    seconds: float = 10.0
    batch: int = 1
    device: str = "cpu"
    threads: int = 0  # 0: torch's choice
    work: Literal["passes", "stream"] = "passes"
    stages: bool = False
    backend: Literal["auto", "reference"] = "auto"  # "reference": everything in PyTorch, the scan a loop
    limit_bytes: int = 0  # for a GPU, whose memory the asking process cannot watch; 0 is no limit


@dataclass(frozen=True)
class Measured:
    """Times in seconds. Of a stream, times are those of one hop, and `peak_bytes` is that of the whole stream."""

    median: float
    fastest: float
    slowest: float
    p99: float
    count: int  # passes or hops that were timed
    peak_bytes: int  # weights, and what passes held beyond a process that is warm
    process_bytes: int  # of everything in the process; 0 on a GPU
    stages: dict[str, float] = field(default_factory=dict)  # "other" is what no stage accounts for
    hop_seconds: float = 0.0  # of audio; of a stream only
    latency_seconds: float = 0.0  # that the Streamer states; of a stream only


@dataclass(frozen=True)
class Skipped:
    """A point that went over a limit, or was not tried since a shorter one had: there is no figure for it."""

    reason: str
