"""Rows of benchmarks/gpu.py: are the GPU kernels right, and how far is the scan from its floor and from mamba-ssm's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial

import torch
from gpu_table import WRONG, Line, Setting, attempt  # beside this file
from torch import Tensor
from usual import official_scan

from semamba import models
from semamba.models.mixers import BidirectionalMamba, MixerConfig
from semamba.ops import reference, selective_scan, using

INNER, STATES = 256, 16
EXPONENTIALS_PER_CYCLE = 16  # of a multiprocessor, compute capability 7.0 to 12.0 (CUDA C++ programming guide)
CLOCK = 1_980_000  # kHz, of an H100 or H200, where torch does not say
ORDER = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
LIMITS = ((torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3))


def scan_inputs(batch: int, length: int, inner: int, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """A scan as a Mamba layer calls it: S4D-real A, steps from 1 ms to 100 ms."""
    values = {k: torch.randn(batch, length, inner, dtype=dtype, device=device) for k in ("u", "delta", "z")}
    values |= {k: torch.randn(batch, length, STATES, dtype=dtype, device=device) for k in ("B", "C")}
    values["A"] = -torch.arange(1.0, STATES + 1, device=device).repeat(inner, 1)
    values["D"] = torch.ones(inner, device=device)
    values["delta_bias"] = torch.empty(inner, device=device).uniform_(-6.9, -2.3)
    return {name: values[name].requires_grad_() for name in ORDER}


def kernels(setting: Setting) -> Iterator[Line]:
    """Largest relative error in the 2-norm over outputs, states and gradients."""
    torch.manual_seed(0)
    for dtype, limit in LIMITS:
        for reverse in (False, True):
            name = f"scan, {str(dtype)[6:]}{', reversed' if reverse else ''}"
            yield attempt(name, partial(_scan, setting, name, dtype, reverse, limit))
    for axis in (1, 2):
        yield attempt(f"layer along axis {axis}", partial(_layer, setting, axis))
    yield attempt("advanced-mamba", partial(_model, setting))
    yield attempt("the scan twice", partial(_twice, setting))
    yield attempt("compiled layer", partial(_whole_graph, setting))


def _scan(setting: Setting, name: str, dtype: torch.dtype, reverse: bool, limit: float) -> Line:
    values = scan_inputs(*setting.size((3, 63, 500), (2, 5, 6)), dtype, setting.device)
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in values.items()}
    found = _with_gradients(selective_scan, values, reverse)
    return verdict(name, found, _with_gradients(reference.selective_scan, exact, reverse), limit)


def _twice(setting: Setting) -> Line:
    values = scan_inputs(*setting.size((64, 321, 256), (2, 5, 6)), torch.bfloat16, setting.device)
    runs = [_with_gradients(selective_scan, values, False) for _ in range(2)]
    same = all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    return Line("the scan twice", None, "", "ok: equal bits" if same else f"{WRONG}: the bits differ")


def _with_gradients(
    scan: Callable[..., tuple[Tensor, Tensor]], values: dict[str, Tensor], reverse: bool
) -> list[Tensor]:
    outputs = scan(**values, delta_softplus=True, reverse=reverse)
    gradients = torch.autograd.grad(outputs[0].square().sum(), list(values.values()))
    return [tensor.detach() for tensor in (*outputs, *gradients)]


def verdict(name: str, found: list[Tensor], wanted: list[Tensor], limit: float) -> Line:
    error = max(float((a.double() - b).norm() / b.norm().clamp(min=1e-30)) for a, b in zip(found, wanted, strict=True))
    note = "ok" if error <= limit else f"{WRONG}: more than {limit:g}"
    return Line(f"{name}, error against float64", error, "", note)


def _layer(setting: Setting, axis: int) -> Line:
    """Both directions and the convolution, in place along one axis of features, against float64."""
    layer = BidirectionalMamba(MixerConfig(expand=4), setting.size(64, 4)).to(setting.device)
    x = torch.randn(*setting.size((2, 37, 51, 64), (1, 3, 4, 4)), device=setting.device)
    results = []
    for module, value in ((layer, x), (deepcopy(layer).double(), x.double())):
        y = module.along(value, axis)
        results.append([y.detach(), *torch.autograd.grad(y.square().sum(), list(module.parameters()))])
    return verdict(f"layer along axis {axis}", *results, 1e-4)


@torch.no_grad()
def _model(setting: Setting) -> Line:
    config = models.preset(setting.size("advanced-mamba", "causal-small"))
    model = models.build(config).to(setting.device).eval()
    spectrum = torch.randn(1, setting.size(81, 5), config.stft.n_bins, 2, device=setting.device)
    found = model(spectrum)[0]
    with using("reference"):
        wanted = model.double()(spectrum.double())[0]
    return verdict("advanced-mamba, 0.5 s", [found], [wanted], 1e-3)


def _whole_graph(setting: Setting) -> Line:
    """`torch.compile` with `fullgraph` refuses what it cannot take as a whole."""
    layer = BidirectionalMamba(MixerConfig(expand=4), setting.size(64, 4)).to(setting.device)
    x = torch.randn(*setting.size((2, 37, 51, 64), (1, 3, 4, 4)), device=setting.device)
    compiled = torch.compile(lambda x: layer.along(x, 1), fullgraph=True, backend=setting.size("inductor", "aot_eager"))
    return verdict("compiled layer, one graph", [compiled(x).detach()], [layer.along(x, 1).detach().double()], 1e-4)


def scan(setting: Setting) -> Iterator[Line]:
    batch, length = setting.size((800, 321), (2, 5))
    values = scan_inputs(batch, length, INNER, torch.bfloat16, setting.device)
    cotangent = torch.randn_like(values["u"])

    def both() -> object:
        y = selective_scan(**values, delta_softplus=True)[0]
        return torch.autograd.grad(y, list(values.values()), cotangent)

    forward = torch.no_grad()(lambda: selective_scan(**values, delta_softplus=True))
    bandwidth = copy_bandwidth(setting)
    yield Line("copy within the GPU's memory", bandwidth / 1e9, "GB/s", "bytes read and written")
    size = f"B {batch} L {length} D {INNER} N {STATES} bf16"
    times = {}
    for name, run, passes in (("forward", forward, 1), ("forward + backward", both, 2)):
        times[name], (least, note) = setting.milliseconds(run), floor(setting, batch, length, passes, bandwidth)
        yield Line(f"{size}, {name}", times[name], "ms", f"{times[name] / least:.2f} x the floor: {note}")
    if not setting.dry:
        yield attempt("chosen by tuning", tuned)
    ours = times["forward + backward"]
    yield attempt("mamba-ssm's kernel", partial(official, setting, values, cotangent, ours))


def copy_bandwidth(setting: Setting) -> float:
    """Bytes a second."""
    source = torch.randn(setting.size(1 << 29, 1 << 10), device=setting.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / setting.milliseconds(lambda: target.copy_(source)) * 1e3


def floor(setting: Setting, batch: int, length: int, passes: int, bandwidth: float) -> tuple[float, str]:
    """Milliseconds of a bfloat16 scan: forward (1 pass) or forward and backward (2)."""
    wide, narrow = batch * length * INNER * 2, batch * length * STATES * 2  # bytes of u and of B
    # Forward: u, delta, z, B, C read and y written; backward: those and dy read, five gradients written.
    total = 4 * wide + 2 * narrow + (passes - 1) * (7 * wide + 4 * narrow)
    exponentials = passes * batch * length * INNER * STATES
    if setting.dry:
        return 1.0, "none on a CPU"
    device = torch.cuda.get_device_properties(0)
    clock = getattr(device, "clock_rate", CLOCK) * 1e3
    by_bytes = total / bandwidth * 1e3
    by_exponentials = exponentials / (EXPONENTIALS_PER_CYCLE * device.multi_processor_count * clock) * 1e3
    return max(by_bytes, by_exponentials), f"bytes {by_bytes:.2f} ms, exponentials {by_exponentials:.2f} ms"


def tuned() -> Line:
    from semamba.ops import triton

    kernels = {"forward": triton._scan_forward, "backward": triton._scan_backward}
    found = "; ".join(f"{name}: {kernel.best_config}" for name, kernel in kernels.items())
    return Line("chosen by tuning", None, "", found)


def official(setting: Setting, values: dict[str, Tensor], cotangent: Tensor, ours: float) -> Line:
    """mamba-ssm reads (B, D, L); it gets its own layout, without the cost of a transposition."""
    name = "mamba-ssm's kernel, forward + backward"
    leaves = [
        (v.detach().transpose(1, 2).contiguous() if v.dim() == 3 else v.detach()).requires_grad_()
        for v in values.values()
    ]
    gradient = cotangent.transpose(1, 2).contiguous()
    try:
        time = setting.milliseconds(lambda: torch.autograd.grad(official_scan(*leaves), leaves, gradient))
    except ImportError as error:
        return Line(name, None, "", str(error))
    return Line(name, time, "ms", f"{time / ours:.2f} x our time")
