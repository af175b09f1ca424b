"""What a model costs: multiply-accumulates (MACs) by two protocols, parameters and latency.

Letters: P positions (batch times length), d = d_model, D inner channels, N state size, R rank of the step, k kernel.

The **paper's** protocol is that of thop, which the published figures come from: a forward hook on every module whose
type it knows. It therefore misses what is computed by other means (Mamba's in_proj, dt_proj and scan, attention inside
`nn.MultiheadAttention`) and charges a transposed convolution by its output. It counts norms as four operations for each
element and PReLU as one. Kept to compare with published tables: 65.457 G for the advanced model on two seconds.

The **honest** protocol counts what is computed: every matrix product and convolution that reaches the tensor library,
attention's two products included, and for each state of a scan three MACs (decay, update, read-out). Additions,
norms, activations and the Fourier transform are not counted.

Models are run on the meta device: shapes only, no arithmetic, so a count takes tenths of a second.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from semamba.models import build
from semamba.models.layers import InstanceNorm
from semamba.models.mamba import Mamba

SAMPLE_RATE = 16_000
# Two seconds at hop 100, as in tables 2-3 of the paper, and the 250 frames of its table 1.
_FRAMES = {"advanced": 321, "basic": 250, "causal": 250}


@dataclass(frozen=True)
class Profile:
    """Cost of one forward pass over `frames` frames, which stand for `seconds` of audio."""

    parameters: int
    causal: bool
    latency_ms: float | None  # from a sample going in to the same sample coming out finished; None: the whole signal
    frames: int
    seconds: float
    paper_macs: int
    honest_macs: int
    parts: Mapping[str, int]  # of honest_macs: product (attention included), convolution, scan, recurrence

    @property
    def paper_macs_per_second(self) -> float:
        return self.paper_macs / self.seconds

    @property
    def honest_macs_per_second(self) -> float:
        return self.honest_macs / self.seconds


def profile(config: Any, frames: int | None = None) -> Profile:
    """Cost of the model that `config` describes, on `frames` frames (default: as many as the paper's figures use)."""
    frames = frames or _FRAMES[config.kind]
    model = build(config).to("meta").eval()
    paper, honest = count_macs(model, torch.empty(1, frames, config.stft.n_bins, 2, device="meta"))
    ahead = getattr(config, "lookahead", 0 if model.causal else None)
    latency = None if ahead is None else config.stft.n_fft + ahead * config.stft.hop_length
    return Profile(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        causal=bool(model.causal),
        latency_ms=None if latency is None else 1000 * latency / SAMPLE_RATE,
        frames=frames,
        seconds=frames * config.stft.hop_length / SAMPLE_RATE,
        paper_macs=paper,
        honest_macs=sum(honest.values()),
        parts=dict(honest),
    )


def count_macs(model: nn.Module, *inputs: Tensor) -> tuple[int, Counter[str]]:
    """MACs of `model(*inputs)` on the meta device: the paper's total and the honest counts by kind of work."""
    paper: Counter[str] = Counter()
    honest: Counter[str] = Counter()
    with _paper_hooks(model, paper), _recurrences_by_formula(model, paper, honest), torch.no_grad(), _Products(honest):
        model(*inputs)
    return paper.total(), honest


# --- The paper's protocol ---------------------------------------------------------------------------------------------

Rule = Callable[[Any, Tensor, Tensor], int]


def _thop_convolution(module: Any, x: Tensor, y: Tensor) -> int:
    return y.numel() * (module.in_channels // module.groups) * math.prod(module.kernel_size)


def _thop_mamba(module: Mamba, batch: int, length: int) -> int:
    """Its modules that mamba-ssm calls as modules; the short convolution runs over k - 1 positions more, then cuts."""
    cfg = module.config
    convolution = (length + cfg.d_conv - 1) * cfg.d_inner * cfg.d_conv
    projections = length * cfg.d_inner * (cfg.dt_rank + 2 * cfg.d_state + cfg.d_model)
    return batch * (convolution + projections)


def _thop_lstm(module: nn.LSTM, positions: int) -> int:
    """One layer: four gates with their sums and biases, then cell and output."""
    hidden = module.hidden_size
    gates = 4 * ((module.input_size + hidden) * hidden + 3 * hidden)
    return positions * (2 if module.bidirectional else 1) * (gates + 4 * hidden)


_PAPER_RULES: dict[type[nn.Module] | tuple[type[nn.Module], ...], Rule] = {
    (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d): _thop_convolution,
    nn.Linear: lambda module, x, y: y.numel() * module.in_features,
    (InstanceNorm, nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d): lambda module, x, y: 4 * x.numel(),
    nn.PReLU: lambda module, x, y: x.numel(),
}


@contextmanager
def _paper_hooks(model: nn.Module, counts: Counter[str]) -> Iterator[None]:
    def hook_for(name: str, rule: Rule) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            counts[name] += rule(module, inputs[0], output[0] if isinstance(output, tuple) else output)

        return hook

    handles = []
    for name, module in model.named_modules():
        for types, rule in _PAPER_RULES.items():
            if isinstance(module, types):
                handles.append(module.register_forward_hook(hook_for(name, rule)))
                break
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# --- The honest protocol ----------------------------------------------------------------------------------------------


class _Products(TorchDispatchMode):
    """Counts every matrix product, convolution and fused attention that is dispatched."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self.counts["product"] += result.numel() * args[0].shape[-1]
        elif name in ("addmm", "baddbmm"):
            self.counts["product"] += result.numel() * args[1].shape[-1]
        elif name == "convolution":
            x, weight, transposed = args[0], args[1], args[6]
            self.counts["convolution"] += (x if transposed else result).numel() * math.prod(weight.shape[1:])
        elif name.startswith("_scaled_dot_product"):
            query, key, value = args[:3]
            self.counts["product"] += query[..., 0].numel() * key.shape[-2] * (key.shape[-1] + value.shape[-1])
        return result


def _mamba_macs(module: Mamba, positions: int) -> dict[str, int]:
    cfg = module.config
    per_position = 3 * cfg.d_model + cfg.dt_rank + 2 * cfg.d_state + cfg.dt_rank
    return {
        "product": positions * cfg.d_inner * per_position,
        "convolution": positions * cfg.d_inner * cfg.d_conv,
        "scan": positions * cfg.d_inner * cfg.d_state * 3,
    }


def _lstm_macs(module: nn.LSTM, positions: int) -> dict[str, int]:
    directions = 2 if module.bidirectional else 1
    gates = 4 * module.hidden_size * (module.input_size + module.hidden_size)
    return {"recurrence": positions * directions * gates}


# --- Recurrent modules, both protocols --------------------------------------------------------------------------------


@contextmanager
def _recurrences_by_formula(model: nn.Module, paper: Counter[str], honest: Counter[str]) -> Iterator[None]:
    """Replace the recurrent modules by stand-ins that know their cost: which kernel runs them must not matter."""
    replaced: list[nn.Module] = []
    for name, module in model.named_modules():
        if isinstance(module, Mamba):
            _stand_in_for_mamba(name, module, paper, honest)
        elif isinstance(module, nn.LSTM):
            _stand_in_for_lstm(name, module, paper, honest)
        else:
            continue
        replaced.append(module)
    try:
        yield
    finally:
        for module in replaced:
            for method in ("forward", "residual"):
                vars(module).pop(method, None)


def _stand_in_for_mamba(name: str, module: Mamba, paper: Counter[str], honest: Counter[str]) -> None:
    def record(batch: int, length: int) -> None:
        paper[name] += _thop_mamba(module, batch, length)
        honest.update(_mamba_macs(module, batch * length))

    def forward(x: Tensor, state: Any = None) -> tuple[Tensor, None]:
        record(*x.shape[:2])
        return torch.empty_like(x), None

    def residual(x: Tensor, norm: nn.Module, axis: int, state: Any = None) -> tuple[Tensor, None]:
        length = x.shape[axis]
        record(x.shape[:-1].numel() // length, length)
        return torch.empty_like(x), None

    vars(module).update(forward=forward, residual=residual)


def _stand_in_for_lstm(name: str, module: nn.LSTM, paper: Counter[str], honest: Counter[str]) -> None:
    def forward(x: Tensor, state: Any = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        positions, directions = x.shape[0] * x.shape[1], 2 if module.bidirectional else 1
        paper[name] += _thop_lstm(module, positions)
        honest.update(_lstm_macs(module, positions))
        memory = x.new_empty(directions, x.shape[0], module.hidden_size)
        return x.new_empty(*x.shape[:2], directions * module.hidden_size), (memory, memory)

    vars(module).update(forward=forward)
