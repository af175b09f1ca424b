"""The process that measures one point: `python -m semamba.profiling.worker SPEC`, with the Spec as JSON.

It writes one JSON object a line: {"event": "ready", "resident": bytes} when everything is loaded and warm, {"event":
"pass"} before every pass, {"event": "result", ...} at the end, {"event": "memory"} when a GPU's limit was reached.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

from semamba.errors import out_of_memory
from semamba.profiling.spec import Measured, Spec

Tell = Callable[..., None]
Work = tuple[list[float], dict[str, float], float, float]  # times, stages, seconds of a hop, seconds of latency

# A pass slower than this is timed once; faster ones are repeated, for at least these passes and about these seconds.
_LONG_SECONDS = 5.0
_MIN_PASSES, _MAX_PASSES, _REPEAT_SECONDS = 3, 100, 2.0
_WARM_HOPS, _WARM_SECONDS = 20, 0.05


def main() -> None:
    def tell(event: str, **content: Any) -> None:
        print(json.dumps({"event": event, **content}), flush=True)

    try:
        tell("result", **asdict(execute(Spec(**json.loads(sys.argv[1])), tell)))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        tell("memory")


def execute(spec: Spec, tell: Tell) -> Measured:
    """Measure in this process, whose threads it sets."""
    import torch

    from semamba.inference.enhance import choose_device
    from semamba.ops import using
    from semamba.profiling.machine import PeakMemory
    from semamba.profiling.subjects import open_subject

    device = choose_device(spec.device)
    if spec.threads:
        torch.set_num_threads(spec.threads)
    gpu = device.type == "cuda"
    if gpu and spec.limit_bytes:
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, spec.limit_bytes / whole), device)
    subject = open_subject(spec.subject)
    subject.network.to(device)
    with torch.inference_mode(), using("reference") if spec.backend == "reference" else nullcontext():
        subject.run(subject.signal(_WARM_SECONDS, 1, device))  # loads libraries, which are not the model's memory
        if gpu:
            torch.cuda.reset_peak_memory_stats(device)
        memory = PeakMemory()
        tell("ready", resident=memory.base)
        times, stages, hop, latency = (_stream if spec.work == "stream" else _passes)(spec, subject, device, tell)
    ordered = sorted(times)
    return Measured(
        median=statistics.median(times),
        fastest=ordered[0],
        slowest=ordered[-1],
        p99=ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        count=len(times),
        peak_bytes=torch.cuda.max_memory_allocated(device) if gpu else _weights(subject.network) + memory.above_base(),
        process_bytes=0 if gpu else memory.total(),
        stages=stages,
        hop_seconds=hop,
        latency_seconds=latency,
    )


def _passes(spec: Spec, subject: Any, device: Any, tell: Tell) -> Work:
    """Whole signals, the first one to warm up; then, apart from the timing, one or more watched ones."""
    from semamba.profiling.stages import StageClock

    signal = subject.signal(spec.seconds, spec.batch, device)

    def timed(clock: StageClock | None = None) -> float:
        tell("pass")
        _synchronise(device)
        start = time.perf_counter()
        subject.run(signal, clock)
        _synchronise(device)
        return time.perf_counter() - start

    first = timed()
    times = [timed()]
    while first < _LONG_SECONDS and (
        len(times) < _MIN_PASSES or (sum(times) < _REPEAT_SECONDS and len(times) < _MAX_PASSES)
    ):
        times.append(timed())
    if not spec.stages:
        return times, {}, 0.0, 0.0
    clock, rounds = StageClock(device), min(3, len(times))
    with clock.watching(subject.network):
        total = sum(timed(clock) for _ in range(rounds)) / rounds
    stages = {name: seconds / rounds for name, seconds in clock.seconds().items()}
    stages["other"] = max(0.0, total - sum(stages.values()))
    return times, stages, 0.0, 0.0


def _stream(spec: Spec, subject: Any, device: Any, tell: Tell) -> Work:
    """One hop after the other through the Streamer that applications use."""
    from semamba.inference.stream import Streamer
    from semamba.models.complexity import SAMPLE_RATE

    hop = subject.model.stft.hop_length
    streamer = Streamer(subject.model, SAMPLE_RATE, device=str(device))
    wave = subject.signal(spec.seconds + _WARM_HOPS * hop / SAMPLE_RATE, 1, device).cpu().numpy()
    times = []
    tell("pass")
    for start in range(0, wave.shape[1] - hop + 1, hop):
        block = wave[:, start : start + hop]
        began = time.perf_counter()
        streamer.feed(block)
        times.append(time.perf_counter() - began)
    return times[_WARM_HOPS:], {}, hop / SAMPLE_RATE, streamer.latency_seconds


def _weights(network: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers()))


def _synchronise(device: Any) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
