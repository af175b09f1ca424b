"""Import of official checkpoints, checked against a forward pass written from the official names alone.

The reference below keeps the official layout (B, C, T, F), flips sequences for the backward direction and runs the
recurrence step by step: nothing in it is shared with the model it checks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from semamba import checkpoint
from semamba.convert import convert, official_names, read_config, translate
from semamba.errors import SemambaError
from semamba.models.advanced import AdvancedModel
from semamba.spectrum import Spectrum

State = dict[str, Tensor]
Shapes = Iterator[tuple[str, tuple[int, ...]]]
SIZES = {"hid_feature": 6, "num_tfmamba": 2, "d_state": 3, "d_conv": 4, "expand": 2, "n_fft": 40}


def official_yaml(sizes: dict[str, int] | None = None) -> dict[str, Any]:
    """A YAML mapping of the official code, with the sections that a conversion ignores."""
    model = {**SIZES, **(sizes or {})}
    n_fft = model.pop("n_fft")
    return {
        "env_setting": {"num_gpus": 2, "seed": 1234},
        "training_cfg": {"learning_rate": 0.0005, "loss": {"metric": 0.05}},
        "stft_cfg": {"sampling_rate": 16000, "n_fft": n_fft, "hop_size": n_fft // 4, "win_size": n_fft},
        "model_cfg": {
            **model,
            "compress_factor": 0.3,
            "norm_epsilon": 1e-5,
            "beta": 2.0,
            "input_channel": 2,
            "output_channel": 1,
        },
    }


# --- The official tensors, by name and shape ------------------------------------------------------------------------


def official_shapes(cfg: dict[str, Any]) -> Shapes:
    model, c = cfg["model_cfg"], cfg["model_cfg"]["hid_feature"]
    inner, rank, n = model["expand"] * c, math.ceil(c / 16), model["d_state"]

    def conv_norm_act(name: str, shape: tuple[int, ...], out: int, first: int = 0) -> Shapes:
        yield f"{name}.{first}.weight", shape
        yield f"{name}.{first}.bias", (out,)
        yield f"{name}.{first + 1}.weight", (out,)
        yield f"{name}.{first + 1}.bias", (out,)
        yield f"{name}.{first + 2}.weight", (out,)

    def dense(name: str) -> Shapes:
        for i in range(4):
            yield from conv_norm_act(f"{name}.dense_block.{i}", (c, c * (i + 1), 3, 3), c)

    yield from conv_norm_act("dense_encoder.dense_conv_1", (c, 2, 1, 1), c)
    yield from dense("dense_encoder.dense_block")
    yield from conv_norm_act("dense_encoder.dense_conv_2", (c, c, 1, 3), c)
    for i in range(model["num_tfmamba"]):
        for axis in ("time", "freq"):
            for direction in ("forward", "backward"):
                name = f"TSMamba.{i}.{axis}_mamba.{direction}_blocks.0"
                yield f"{name}.mixer.A_log", (inner, n)
                yield f"{name}.mixer.D", (inner,)
                yield f"{name}.mixer.in_proj.weight", (2 * inner, c)
                yield f"{name}.mixer.conv1d.weight", (inner, 1, model["d_conv"])
                yield f"{name}.mixer.conv1d.bias", (inner,)
                yield f"{name}.mixer.x_proj.weight", (rank + 2 * n, inner)
                yield f"{name}.mixer.dt_proj.weight", (inner, rank)
                yield f"{name}.mixer.dt_proj.bias", (inner,)
                yield f"{name}.mixer.out_proj.weight", (c, inner)
                yield f"{name}.norm.weight", (c,)
            yield f"TSMamba.{i}.{axis[0]}linear.weight", (2 * c, c, 1)
            yield f"TSMamba.{i}.{axis[0]}linear.bias", (c,)
    yield from dense("mask_decoder.dense_block")
    yield "mask_decoder.mask_conv.0.weight", (c, c, 1, 3)
    yield "mask_decoder.mask_conv.0.bias", (c,)
    yield from conv_norm_act("mask_decoder.mask_conv", (1, c, 1, 1), 1, first=1)
    yield "mask_decoder.mask_conv.4.weight", (1, 1, 1, 1)
    yield "mask_decoder.mask_conv.4.bias", (1,)
    yield "mask_decoder.lsigmoid.slope", (cfg["stft_cfg"]["n_fft"] // 2 + 1, 1)
    yield from dense("phase_decoder.dense_block")
    yield from conv_norm_act("phase_decoder.phase_conv", (c, c, 1, 3), c)
    for part in "ri":
        yield f"phase_decoder.phase_conv_{part}.weight", (1, c, 1, 1)
        yield f"phase_decoder.phase_conv_{part}.bias", (1,)


def official_state(cfg: dict[str, Any], seed: int = 0) -> State:
    """Random weights in which no two tensors are alike and no gain is one."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in official_shapes(cfg):
        fan = math.prod(shape[1:]) if len(shape) > 1 else 1
        state[name] = torch.randn(shape, generator=generator) / math.sqrt(fan)
        if name.endswith("A_log"):
            state[name] = state[name] * 0.3 + 0.5
        if name.endswith("dt_proj.bias"):
            state[name] = state[name] - 2
    return state


# --- The reference forward pass -------------------------------------------------------------------------------------


def conv_norm_act(state: State, name: str, x: Tensor, first: int = 0, conv: Any = F.conv2d, **options: Any) -> Tensor:
    x = conv(x, state[f"{name}.{first}.weight"], state[f"{name}.{first}.bias"], **options)
    norm = f"{name}.{first + 1}"
    x = F.instance_norm(x, weight=state[f"{norm}.weight"], bias=state[f"{norm}.bias"])
    return F.prelu(x, state[f"{name}.{first + 2}.weight"])


def dense(state: State, name: str, x: Tensor) -> Tensor:
    known = x
    for i in range(4):
        x = conv_norm_act(state, f"{name}.dense_block.{i}", known, dilation=(2**i, 1), padding=(2**i, 1))
        known = torch.cat([x, known], dim=1)
    return x


def mamba(state: State, name: str, x: Tensor) -> Tensor:
    """(L, d): normalise, mix step by step, add the input."""
    p = {key.removeprefix(f"{name}.mixer."): value for key, value in state.items() if key.startswith(f"{name}.mixer.")}
    normed = x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-5) * state[f"{name}.norm.weight"]
    u, z = (normed @ p["in_proj.weight"].T).chunk(2, dim=-1)
    padded = F.pad(u.T, (p["conv1d.weight"].shape[-1] - 1, 0))
    u = F.silu(F.conv1d(padded, p["conv1d.weight"], p["conv1d.bias"], groups=len(padded)).T)
    n, rank = p["A_log"].shape[1], p["dt_proj.weight"].shape[1]
    delta, b, c = (u @ p["x_proj.weight"].T).split([rank, n, n], dim=-1)
    delta = F.softplus(delta @ p["dt_proj.weight"].T + p["dt_proj.bias"])
    h, outputs = torch.zeros_like(p["A_log"]), []
    for t in range(len(x)):
        h = torch.exp(delta[t, :, None] * -p["A_log"].exp()) * h + (delta[t] * u[t])[:, None] * b[t]
        outputs.append(h @ c[t] + p["D"] * u[t])
    return (torch.stack(outputs) * F.silu(z)) @ p["out_proj.weight"].T + x


def both_ways(state: State, name: str, linear: str, x: Tensor) -> Tensor:
    """(L, d)."""
    forward = mamba(state, f"{name}.forward_blocks.0", x)
    backward = mamba(state, f"{name}.backward_blocks.0", x.flip(0)).flip(0)
    joined = torch.cat([forward, backward], dim=-1).T[None]
    return F.conv_transpose1d(joined, state[f"{linear}.weight"], state[f"{linear}.bias"])[0].T + x


def reference(state: State, blocks: int, magnitude: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
    """Magnitude and phase (T, F) in, enhanced magnitude and phase (T, F) out."""
    x = torch.stack([magnitude, phase])[None]  # (1, 2, T, F)
    x = conv_norm_act(state, "dense_encoder.dense_conv_1", x)
    x = dense(state, "dense_encoder.dense_block", x)
    x = conv_norm_act(state, "dense_encoder.dense_conv_2", x, stride=(1, 2))[0]  # (C, T, H)
    for i in range(blocks):
        name = f"TSMamba.{i}"
        columns = [both_ways(state, f"{name}.time_mamba", f"{name}.tlinear", column.T) for column in x.unbind(2)]
        x = torch.stack(columns, dim=2).transpose(0, 1)  # (C, T, H)
        rows = [both_ways(state, f"{name}.freq_mamba", f"{name}.flinear", row.T) for row in x.unbind(1)]
        x = torch.stack(rows, dim=1).permute(2, 1, 0)
    name = "mask_decoder.mask_conv"
    mask = dense(state, "mask_decoder.dense_block", x[None])
    mask = F.conv_transpose2d(mask, state[f"{name}.0.weight"], state[f"{name}.0.bias"], stride=(1, 2))
    mask = conv_norm_act(state, name, mask, first=1)
    mask = F.conv2d(mask, state[f"{name}.4.weight"], state[f"{name}.4.bias"])[0, 0]  # (T, F)
    mask = 2 * torch.sigmoid(state["mask_decoder.lsigmoid.slope"][:, 0] * mask)
    y = dense(state, "phase_decoder.dense_block", x[None])
    y = conv_norm_act(state, "phase_decoder.phase_conv", y, conv=F.conv_transpose2d, stride=(1, 2))
    names = (f"phase_decoder.phase_conv_{part}" for part in "ri")
    real, imaginary = (F.conv2d(y, state[f"{name}.weight"], state[f"{name}.bias"])[0, 0] for name in names)
    return mask * magnitude, torch.atan2(imaginary, real)


# --- Tests ----------------------------------------------------------------------------------------------------------


@pytest.fixture()
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """An official checkpoint, its YAML file and a folder to be."""
    cfg = official_yaml()
    torch.save({"generator": official_state(cfg), "steps": 3}, tmp_path / "official.pth")
    (tmp_path / "official.yaml").write_text(yaml.safe_dump(cfg), encoding="utf-8")
    return tmp_path / "official.pth", tmp_path / "official.yaml", tmp_path / "converted"


def rewrite(path: Path, state: State) -> None:
    torch.save({"generator": state}, path)


def test_the_converted_model_computes_what_the_official_one_does(files: tuple[Path, Path, Path]) -> None:
    convert(*files)
    model = checkpoint.load(files[2])
    torch.manual_seed(5)
    magnitude, phase = torch.rand(7, 21) * 2, (torch.rand(7, 21) * 2 - 1) * math.pi
    spectrum = torch.stack([magnitude * phase.cos(), magnitude * phase.sin()], dim=-1)[None]
    with torch.no_grad():
        ours = model(spectrum)[0][0]
        size, angle = reference(official_state(official_yaml()), 2, magnitude, phase)
    assert size.std() > 0.1 and angle.std() > 0.1  # a constant output would prove nothing
    expected = torch.stack([size * angle.cos(), size * angle.sin()], dim=-1)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_spectra_and_waveforms_are_those_of_the_official_pipeline() -> None:
    """Compared as complex numbers: the edge frames are mirrored, so their bins are real up to rounding and the sign of
    a phase of pi is chance, in the official code as well."""
    spectrum = Spectrum(read_config(official_yaml(), "x").stft)
    torch.manual_seed(6)
    wave, window = torch.randn(1, 80), torch.hann_window(40)
    bins = torch.stft(wave, 40, 10, 40, window, center=True, pad_mode="reflect", return_complex=True)
    compressed = torch.polar(bins.abs() ** 0.3, bins.angle())  # (1, F, T)
    torch.testing.assert_close(
        torch.view_as_complex(spectrum.analyse(wave)), compressed.transpose(1, 2), atol=1e-5, rtol=0
    )
    enhanced = compressed * torch.rand(compressed.shape)
    theirs = torch.istft(torch.polar(enhanced.abs() ** (1 / 0.3), enhanced.angle()), 40, 10, 40, window, center=True)
    ours = spectrum.synthesise(torch.view_as_real(enhanced.transpose(1, 2)), 80)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_every_official_tensor_is_used_once() -> None:
    cfg = official_yaml()
    names = [name for source in official_names(read_config(cfg, "x")).values() for name in source.names]
    assert sorted(names) == sorted(official_state(cfg))
    model = AdvancedModel(read_config(cfg, "x"))
    assert official_names(model.config).keys() == model.state_dict().keys()


def test_the_published_sizes_give_the_published_model() -> None:
    cfg = official_yaml({"hid_feature": 64, "num_tfmamba": 4, "d_state": 16, "expand": 4, "n_fft": 400})
    assert sum(math.prod(shape) for _, shape in official_shapes(cfg)) == 2_258_769
    from semamba.models.presets import PRESETS

    assert read_config(cfg, "x") == PRESETS["advanced-mamba"]


def test_the_prefix_of_data_parallel_training_is_dropped(files: tuple[Path, Path, Path]) -> None:
    rewrite(files[0], {f"module.{name}": value for name, value in official_state(official_yaml()).items()})
    convert(*files)


MISSING = "TSMamba.1.freq_mamba.backward_blocks.0.mixer.dt_proj.bias"


@pytest.mark.parametrize("name", [MISSING, "phase_decoder.phase_conv_i.bias", "mask_decoder.lsigmoid.slope"])
def test_a_missing_tensor_is_named(files: tuple[Path, Path, Path], name: str) -> None:
    state = official_state(official_yaml())
    del state[name]
    rewrite(files[0], state)
    with pytest.raises(SemambaError, match=f"'{name}' is missing"):
        convert(*files)
    assert not files[2].exists()


def test_a_surplus_tensor_is_named(files: tuple[Path, Path, Path]) -> None:
    rewrite(files[0], {**official_state(official_yaml()), "TSMamba.2.tlinear.bias": torch.zeros(6)})
    with pytest.raises(SemambaError, match="'TSMamba.2.tlinear.bias' does not belong there"):
        convert(*files)


@pytest.mark.parametrize("name", ["TSMamba.0.tlinear.weight", "mask_decoder.lsigmoid.slope", MISSING])
def test_a_misshapen_tensor_is_named(files: tuple[Path, Path, Path], name: str) -> None:
    rewrite(files[0], {**official_state(official_yaml()), name: torch.zeros(5, 5)})
    with pytest.raises(SemambaError, match=f"'{name}' has shape"):
        convert(*files)


def test_a_tensor_that_is_not_finite_is_named(files: tuple[Path, Path, Path]) -> None:
    state = official_state(official_yaml())
    state[MISSING][2] = math.nan
    rewrite(files[0], state)
    with pytest.raises(SemambaError, match=f"'{MISSING}' has values that are not finite"):
        convert(*files)


class Payload:
    """What a pickle could carry; never to be built by a conversion."""


def test_code_in_a_checkpoint_is_not_run(files: tuple[Path, Path, Path]) -> None:
    torch.save({"generator": Payload()}, files[0])
    with pytest.raises(SemambaError, match="not a checkpoint of plain tensors"):
        convert(*files)


@pytest.mark.parametrize("content", [{"discriminator": {}}, {"generator": {}}, torch.zeros(3)])
def test_a_file_without_a_generator_is_refused(files: tuple[Path, Path, Path], content: Any) -> None:
    torch.save(content, files[0])
    with pytest.raises(SemambaError, match="no 'generator' in it"):
        convert(*files)


def test_files_that_are_absent_or_broken(files: tuple[Path, Path, Path]) -> None:
    with pytest.raises(SemambaError, match="no such file"):
        convert(files[0].with_name("absent.pth"), *files[1:])
    files[0].write_bytes(b"this is not a checkpoint")
    with pytest.raises(SemambaError, match="official.pth: not a checkpoint"):
        convert(*files)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("model_cfg", "expnd", 4, "unknown key 'expnd'; did you mean 'expand'"),
        ("model_cfg", "expand", None, "expand"),
        ("stft_cfg", "sampling_rate", 48000, "sampling_rate is 48000, only 16000"),
        ("stft_cfg", "win_size", 20, "win_size is 20, only 40"),
        ("stft_cfg", "n_fft", 41, "n_fft|win_size"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(section: str, key: str, value: Any, message: str) -> None:
    cfg = official_yaml()
    cfg[section][key] = value
    with pytest.raises(SemambaError, match=message):
        read_config(cfg, "official.yaml")


def test_other_yaml_files_are_refused() -> None:
    with pytest.raises(SemambaError, match="no section 'stft_cfg'"):
        read_config({"model": {}}, "recipe.yaml")


def test_a_model_is_not_replaced_unasked(files: tuple[Path, Path, Path]) -> None:
    convert(*files)
    with pytest.raises(SemambaError, match="--overwrite"):
        convert(*files)
    convert(*files, overwrite=True)


def test_half_precision_checkpoints_become_float32() -> None:
    cfg = official_yaml()
    model = AdvancedModel(read_config(cfg, "x"))
    state = translate({name: value.half() for name, value in official_state(cfg).items()}, model, "x")
    assert {value.dtype for value in state.values()} == {torch.float32}
