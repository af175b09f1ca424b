"""Import of official SEMamba checkpoints: every tensor of theirs, by name, into our advanced model.

An official checkpoint (github.com/RoyChao19477/SEMamba) is a .pth file that holds {"generator": state dict, ...}; its
YAML file gives the sizes. It is read with `weights_only=True`, so no code in it runs. Names and sizes must match
one to one: a tensor that is missing, left over, misshapen or not finite is an error that names it.

Three kinds of tensor change form: the 1 x 1 transposed convolutions that join the two directions become linear layers,
the sigmoid's slopes (F, 1) become (F,), and the real and imaginary output layers become one layer with two outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semamba import checkpoint
from semamba.config import load_yaml, parse
from semamba.errors import SemambaError
from semamba.models.advanced import AdvancedConfig, AdvancedModel
from semamba.models.mixers import MixerConfig
from semamba.spectrum import StftConfig


@dataclass(frozen=True)
class OfficialStft:
    """Section `stft_cfg` of an official YAML file."""

    sampling_rate: int
    n_fft: int
    hop_size: int
    win_size: int


@dataclass(frozen=True)
class OfficialModel:
    """Section `model_cfg` of an official YAML file."""

    hid_feature: int
    compress_factor: float
    num_tfmamba: int | None  # None means 4 there
    d_state: int
    d_conv: int
    expand: int
    norm_epsilon: float
    beta: float
    input_channel: int = 2
    output_channel: int = 1


def convert(weights: str | Path, yaml: str | Path, out: str | Path, overwrite: bool = False) -> AdvancedModel:
    """Write the model of an official checkpoint into the folder `out`, in our format; returns it in eval mode.

    Raises SemambaError when a file cannot be read, does not fit or would be replaced without `overwrite`.
    """
    if (Path(out) / checkpoint.WEIGHTS_FILE).exists() and not overwrite:
        raise SemambaError(f"{out}: already holds a model; choose another folder or add --overwrite")
    config = read_config(load_yaml(yaml), str(yaml))
    model = AdvancedModel(config)
    model.load_state_dict(translate(read_generator(weights), model, str(weights)))
    checkpoint.save(out, model, {"source": f"official SEMamba checkpoint {Path(weights).name}"})
    return model.eval()


def read_config(mapping: Mapping[str, Any], where: str) -> AdvancedConfig:
    """Our config of an official YAML mapping; only its sections `stft_cfg` and `model_cfg` are looked at."""
    for section in ("stft_cfg", "model_cfg"):
        if not isinstance(mapping.get(section), Mapping):
            raise SemambaError(f"{where}: no section '{section}'; expected a YAML file of the official SEMamba code")
    stft = parse(OfficialStft, mapping["stft_cfg"], f"{where}: stft_cfg")
    model = parse(OfficialModel, mapping["model_cfg"], f"{where}: model_cfg")
    fixed = {
        "stft_cfg.sampling_rate": (stft.sampling_rate, 16_000),
        "stft_cfg.win_size": (stft.win_size, stft.n_fft),
        "model_cfg.input_channel": (model.input_channel, 2),
        "model_cfg.output_channel": (model.output_channel, 1),
    }
    for key, (value, needed) in fixed.items():
        if value != needed:
            raise SemambaError(f"{where}: {key} is {value}, only {needed} can be converted")
    if stft.n_fft % 4 or stft.n_fft % stft.hop_size:
        raise SemambaError(f"{where}: stft_cfg.n_fft must be a multiple of 4 and of hop_size, got {stft.n_fft}")
    return AdvancedConfig(
        stft=StftConfig(stft.n_fft, stft.hop_size, "hann", "centred", "power", model.compress_factor),
        channels=model.hid_feature,
        blocks=4 if model.num_tfmamba is None else model.num_tfmamba,
        mixer=MixerConfig(
            "mamba", expand=model.expand, d_state=model.d_state, d_conv=model.d_conv, norm_eps=model.norm_epsilon
        ),
        beta=model.beta,
    )


def read_generator(path: str | Path) -> dict[str, Tensor]:
    """The generator's tensors in a .pth file, without the prefix that data-parallel training puts before all."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise SemambaError(f"{path}: no such file") from None
    except Exception as error:  # torch raises whatever zip, pickle or the file system raised
        reason = str(error).strip().split("\n")[0]
        raise SemambaError(f"{path}: not a checkpoint of plain tensors ({reason})") from None
    state = content.get("generator") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise SemambaError(f"{path}: no 'generator' in it; expected a checkpoint of the official SEMamba generator")
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise SemambaError(f"{path}: '{name}' is not a tensor")
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    return {name.removeprefix(prefix): value for name, value in state.items()}


def translate(official: Mapping[str, Tensor], model: AdvancedModel, where: str) -> dict[str, Tensor]:
    """Our state dict for `model` from an official one. Raises SemambaError naming what does not fit."""
    sources = official_names(model.config)
    known = {name for source in sources.values() for name in source.names}
    for problem, names in (("is missing", known - official.keys()), ("does not belong there", official.keys() - known)):
        if names:
            others = f" ({len(names) - 1} more)" if len(names) > 1 else ""
            raise SemambaError(f"{where}: tensor '{min(names)}'{others} {problem} according to its configuration")
    own = model.state_dict()
    return {name: _fetch(source, official, own[name].shape, where) for name, source in sources.items()}


@dataclass(frozen=True)
class Source:
    """Where one of our tensors comes from."""

    names: tuple[str, ...]
    reform: Callable[[Sequence[Tensor]], Tensor] = lambda tensors: tensors[0]


def official_names(config: AdvancedConfig) -> dict[str, Source]:
    """Our tensor names -> the official ones."""
    return dict(_all_sources(config))


def _all_sources(config: AdvancedConfig) -> Iterator[tuple[str, Source]]:
    yield from _conv_block("encoder.widen", "dense_encoder.dense_conv_1")
    yield from _dense_block("encoder.dense", "dense_encoder.dense_block", config.dense_depth)
    yield from _conv_block("encoder.down", "dense_encoder.dense_conv_2")
    for i in range(config.blocks):
        yield from _mixer(f"blocks.{i}.time", f"TSMamba.{i}.time_mamba", f"TSMamba.{i}.tlinear")
        yield from _mixer(f"blocks.{i}.frequency", f"TSMamba.{i}.freq_mamba", f"TSMamba.{i}.flinear")
    ours, theirs = "magnitude_decoder", "mask_decoder"
    yield from _dense_block(f"{ours}.dense", f"{theirs}.dense_block", config.dense_depth)
    yield from _same(f"{ours}.up", f"{theirs}.mask_conv.0", ("weight", "bias"))
    yield from _conv_block(f"{ours}.narrow", f"{theirs}.mask_conv", first=1)
    yield from _same(f"{ours}.out", f"{theirs}.mask_conv.4", ("weight", "bias"))
    yield f"{ours}.sigmoid.slope", Source((f"{theirs}.lsigmoid.slope",), lambda tensors: tensors[0][:, 0])
    yield from _dense_block("phase_decoder.dense", "phase_decoder.dense_block", config.dense_depth)
    yield from _conv_block("phase_decoder.up", "phase_decoder.phase_conv")
    for kind in ("weight", "bias"):
        names = (f"phase_decoder.phase_conv_r.{kind}", f"phase_decoder.phase_conv_i.{kind}")
        yield f"phase_decoder.out.{kind}", Source(names, lambda tensors: torch.cat(list(tensors)))


def _same(ours: str, theirs: str, names: Sequence[str]) -> Iterator[tuple[str, Source]]:
    for name in names:
        yield f"{ours}.{name}", Source((f"{theirs}.{name}",))


def _conv_block(ours: str, theirs: str, first: int = 0) -> Iterator[tuple[str, Source]]:
    """Convolution, norm and activation stand at three consecutive places of an official Sequential."""
    yield from _same(f"{ours}.conv", f"{theirs}.{first}", ("weight", "bias"))
    yield from _same(f"{ours}.norm", f"{theirs}.{first + 1}", ("weight", "bias"))
    yield from _same(f"{ours}.activation", f"{theirs}.{first + 2}", ("weight",))


def _dense_block(ours: str, theirs: str, depth: int) -> Iterator[tuple[str, Source]]:
    for i in range(depth):
        yield from _conv_block(f"{ours}.layers.{i}", f"{theirs}.dense_block.{i}")


_PROJECTIONS = ("in_proj.weight", "x_proj.weight", "dt_proj.weight", "dt_proj.bias", "out_proj.weight")
_MAMBA = ("A_log", "D", "conv1d.weight", "conv1d.bias", *_PROJECTIONS)


def _mixer(ours: str, theirs: str, linear: str) -> Iterator[tuple[str, Source]]:
    for direction, blocks in (("forwards", "forward_blocks"), ("backwards", "backward_blocks")):
        yield from _same(f"{ours}.{direction}.mixer", f"{theirs}.{blocks}.0.mixer", _MAMBA)
        yield from _same(f"{ours}.{direction}.norm", f"{theirs}.{blocks}.0.norm", ("weight",))
    yield f"{ours}.fuse.weight", Source((f"{linear}.weight",), lambda tensors: tensors[0][..., 0].transpose(0, 1))
    yield from _same(f"{ours}.fuse", linear, ("bias",))


def _fetch(source: Source, official: Mapping[str, Tensor], shape: torch.Size, where: str) -> Tensor:
    tensors = [official[name].float() for name in source.names]
    for name, tensor in zip(source.names, tensors, strict=True):
        if not tensor.isfinite().all():
            raise SemambaError(f"{where}: tensor '{name}' has values that are not finite")
    try:
        value = source.reform(tensors)
    except (IndexError, RuntimeError):
        value = tensors[0]
    if value.shape != shape:
        names, found = "', '".join(source.names), ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise SemambaError(f"{where}: tensor '{names}' has shape {found}, which its configuration does not give")
    return value.contiguous()
