"""Check and time the GPU kernels on a CUDA machine; prints one table. Without a GPU it says so in one line and ends.

    python benchmarks/gpu.py [--batch 800] [--length 321] [--seconds 10]

Rows: the kernels against the reference in float64; the scan forward and backward against its floor (the larger of
bytes over bandwidth and exponentials over throughput, both from the device's properties) and against mamba-ssm's kernel
where that can be imported; a training step of the advanced-mamba generator; its inference, eager and as a CUDA graph.
Times are medians of device events after a warm-up that includes autotuning.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from semamba import losses, models
from semamba.ops import gpu, reference, selective_scan
from semamba.spectrum import Spectrum

D, N = 256, 16
RATE = 16_000
EXPONENTIALS_PER_CYCLE = 16  # of a multiprocessor, compute capability 7.0 to 12.0 (CUDA C++ programming guide)
ORDER = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")

Run = Callable[[], object]
Row = tuple[str, str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=800, help="sequences of the scan")
    parser.add_argument("--length", type=int, default=321, help="steps of the scan")
    parser.add_argument("--crops", type=int, default=4, help="two-second crops of a training step")
    parser.add_argument("--seconds", type=float, default=10.0, help="of audio, for inference")
    options = parser.parse_args()
    if why := gpu.why_unavailable():
        sys.exit(f"nothing measured: {why}")
    torch.manual_seed(0)
    torch.set_default_device("cuda")
    device = torch.cuda.get_device_properties(0)
    print(f"{device.name}, {device.multi_processor_count} multiprocessors, torch {torch.__version__}")
    for rows in (
        correctness(),
        scan_rows(options.batch, options.length),
        step_rows(options.crops),
        inference_rows(options.seconds),
    ):
        for name, value, note in rows:
            print(f"{name:52}{value:>14}  {note}", flush=True)


def milliseconds(run: Run, repeats: int = 20) -> float:
    """Median over single runs, between events."""
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def scan_inputs(batch: int, length: int, inner: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """A scan as a Mamba layer calls it: S4D-real A, steps from 1 ms to 100 ms."""
    values = {name: torch.randn(batch, length, inner, dtype=dtype) for name in ("u", "delta", "z")}
    values |= {name: torch.randn(batch, length, N, dtype=dtype) for name in ("B", "C")}
    values["A"] = -torch.arange(1.0, N + 1).repeat(inner, 1)
    values |= {"D": torch.ones(inner), "delta_bias": torch.empty(inner).uniform_(-6.9, -2.3)}
    return {name: values[name].requires_grad_() for name in ORDER}


def correctness() -> Iterator[Row]:
    """Relative error in the 2-norm, worst of output, state and gradients."""
    for dtype, limit in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)):
        for reverse in (False, True):
            values = scan_inputs(3, 63, 500, dtype)
            exact = {name: tensor.detach().double().requires_grad_() for name, tensor in values.items()}
            error = 0.0
            found, wanted = (
                (*outputs, *torch.autograd.grad(outputs[0].square().sum(), list(leaves.values())))
                for outputs, leaves in (
                    (selective_scan(**values, delta_softplus=True, reverse=reverse), values),
                    (reference.selective_scan(**exact, delta_softplus=True, reverse=reverse), exact),
                )
            )
            for a, b in zip(found, wanted, strict=True):
                error = max(error, float((a.double() - b).norm() / b.norm()))
            name = f"scan against float64, {str(dtype)[6:]}{', reversed' if reverse else ''}"
            yield name, f"{error:.1e}", "ok" if error <= limit else f"WRONG: more than {limit:g}"


def floor(batch: int, length: int, passes: int) -> tuple[float, str]:
    """Milliseconds of a bfloat16 scan: forward (1 pass) or forward and backward (2)."""
    device = torch.cuda.get_device_properties(0)
    wide, narrow = batch * length * D * 2, batch * length * N * 2  # bytes of u and of B
    # Forward: u, delta, z, B, C read and y written; backward: those and dy read, five gradients written.
    total = 4 * wide + 2 * narrow + (passes - 1) * (7 * wide + 4 * narrow)
    memory = 2 * device.memory_clock_rate * 1e3 * device.memory_bus_width / 8
    clock = device.clock_rate * 1e3
    exponentials = passes * batch * length * D * N
    by_bytes = total / memory * 1e3
    by_exponentials = exponentials / (EXPONENTIALS_PER_CYCLE * device.multi_processor_count * clock) * 1e3
    return max(by_bytes, by_exponentials), f"floor: bytes {by_bytes:.2f} ms, exponentials {by_exponentials:.2f} ms"


def scan_rows(batch: int, length: int) -> Iterator[Row]:
    values = scan_inputs(batch, length, D, torch.bfloat16)
    cotangent = torch.randn_like(values["u"])

    def both() -> object:
        y = selective_scan(**values, delta_softplus=True)[0]
        return torch.autograd.grad(y, list(values.values()), cotangent)

    forward = torch.no_grad()(lambda: selective_scan(**values, delta_softplus=True))
    size = f"B {batch} L {length} D {D} N {N} bf16"
    for name, run, passes in ((f"scan, {size}, forward", forward, 1), ("scan, forward + backward", both, 2)):
        time, (least, note) = milliseconds(run), floor(batch, length, passes)
        yield name, f"{time:.2f} ms", f"{time / least:.1f} x the {note}"
    yield from official_rows(values, cotangent, milliseconds(both))


def official_rows(values: dict[str, Tensor], cotangent: Tensor, ours: float) -> Iterator[Row]:
    """mamba-ssm reads (B, D, L); it gets its own layout, without the cost of a transposition."""
    name = "mamba-ssm's kernel, forward + backward"
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        yield name, "-", "mamba_ssm cannot be imported here"
        return
    leaves = {
        k: (v.detach().transpose(1, 2).contiguous() if v.dim() == 3 else v.detach()).requires_grad_()
        for k, v in values.items()
    }
    gradient = cotangent.transpose(1, 2).contiguous()

    def both() -> object:
        y = selective_scan_fn(*(leaves[k] for k in ORDER), delta_softplus=True)
        return torch.autograd.grad(y, list(leaves.values()), gradient)

    time = milliseconds(both)
    yield name, f"{time:.2f} ms", f"{time / ours:.2f} x our time"


def step_rows(crops: int) -> Iterator[Row]:
    for label, low in (("fp32", False), ("bf16 autocast", True)):
        torch.cuda.reset_peak_memory_stats()
        time = milliseconds(generator_step(crops, low), 10)
        memory = torch.cuda.max_memory_allocated() / 2**30
        epoch = 11.572 * time / crops
        note = f"{crops / time * 1e3:.1f} crops/s, {memory:.1f} GiB at most; 11,572 crops in {epoch:.0f} s"
        yield f"generator step, {crops} crops of 2 s, {label}", f"{time:.1f} ms", note


def generator_step(crops: int, low: bool) -> Run:
    """Analysis, model, losses, backward and AdamW on noise; the model in bfloat16 where autocast allows, when `low`."""
    model = models.build(models.PRESETS["advanced-mamba"]).cuda().train()
    spectrum, config = Spectrum(model.stft).cuda(), losses.LossConfig()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-4, fused=True)
    clean, noise = 0.1 * torch.randn(2, crops, 2 * RATE)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        clean_spec, noisy_spec = spectrum.analyse(clean), spectrum.analyse(clean + noise)
        with torch.autocast("cuda", torch.bfloat16, enabled=low):
            enhanced = model(noisy_spec)[0].float()
        wave = spectrum.synthesise(enhanced, clean.shape[-1])
        terms = losses.compute(config, spectrum, enhanced, clean_spec, wave, clean)
        losses.total(config, terms).backward()
        optimiser.step()

    return step


@torch.no_grad()
def inference_rows(seconds: float) -> list[Row]:
    model = models.build(models.PRESETS["advanced-mamba"]).cuda().eval()
    spectrum = Spectrum(model.stft).cuda()
    wave = 0.1 * torch.randn(1, round(seconds * RATE))

    def enhance() -> Tensor:
        return spectrum.synthesise(model(spectrum.analyse(wave))[0], wave.shape[-1])

    eager = milliseconds(enhance)  # also the warm-up that a capture needs: nothing is tuned or compiled within one
    note = f"real-time factor {eager / seconds / 1e3:.5f}"
    rows = [(f"inference, {seconds:g} s of audio", f"{eager:.1f} ms", note)]
    static, graph = spectrum.analyse(wave), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = model(static)[0]
    graph.replay()
    error = float((output - model(static)[0]).abs().max())
    time = milliseconds(graph.replay)
    note = f"real-time factor {time / seconds / 1e3:.5f}, off by {error:.1e} from eager"
    return [*rows, ("inference, model alone, CUDA graph", f"{time:.1f} ms", note)]


if __name__ == "__main__":
    main()
