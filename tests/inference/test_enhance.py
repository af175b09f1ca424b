"""Enhancer on arrays and tensors: kind, shape, dtype, odd input."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import semamba
from semamba import checkpoint
from semamba.errors import SemambaError
from semamba.inference.enhance import Enhancer, choose_device, load


def noise(*shape: int) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(shape) * 0.1).astype(np.float32)


@pytest.mark.parametrize("shape", [(8000,), (1, 8000), (3, 8000), (0,), (2, 0), (1,), (24, 100)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int16", "int32", "uint8"])
def test_numpy_in_numpy_out(tiny: Enhancer, shape: tuple[int, ...], dtype: str) -> None:
    wave = noise(*shape)
    if dtype == "uint8":
        wave = wave * 127 + 128
    elif dtype.startswith("int"):
        wave = wave * np.iinfo(dtype).max
    made = tiny(wave.astype(dtype), sample_rate=16_000)
    assert isinstance(made, np.ndarray) and made.shape == shape and made.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int16])
def test_torch_in_torch_out(tiny: Enhancer, dtype: torch.dtype) -> None:
    wave = torch.from_numpy(noise(2, 5000))
    wave = (wave * 32767 if dtype == torch.int16 else wave).to(dtype)
    made = tiny(wave, sample_rate=44_100)
    assert isinstance(made, torch.Tensor) and made.shape == wave.shape and made.dtype == dtype


def test_integers_keep_their_level(identity: Enhancer) -> None:
    wave = np.random.default_rng(0).integers(-32768, 32768, (2, 5000)).astype(np.int16)
    assert np.abs(identity(wave).astype(int) - wave).max() <= 1
    assert np.abs(identity(wave.astype(np.int32) * 65536) // 65536 - wave).max() <= 1


def test_the_input_is_not_touched(tiny: Enhancer) -> None:
    wave = noise(4000)
    kept = wave.copy()
    tiny(wave, 48_000)
    assert np.array_equal(wave, kept)


@pytest.mark.parametrize("rate", [8000, 16_000, 48_000, 192_000])
@pytest.mark.parametrize(
    "wave",
    [
        np.zeros(5000),
        np.full(5000, 0.5),
        np.ones(1),
        np.clip(noise(5000) * 100, -1, 1),
        np.full(5000, 1e-30),
        np.full(5000, 1e30),
        noise(5000) * 32768,
    ],
    ids=["silence", "dc", "one sample", "clipped", "tiny", "huge", "unscaled integers"],
)
def test_odd_signals_give_finite_ones(tiny: Enhancer, wave: np.ndarray, rate: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if abs(wave).max() > 1e20 else "error")  # a model may well fail on 1e30
        made = tiny(wave.astype(np.float32), rate)
    assert made.shape == wave.shape and np.isfinite(made).all()


def test_silence_stays_silent(tiny: Enhancer) -> None:
    assert not tiny(np.zeros((2, 20_000), np.float32), 48_000).any()


def test_nan_is_named_in_a_warning(tiny: Enhancer) -> None:
    wave = noise(5000)
    wave[7] = np.nan
    with pytest.warns(UserWarning, match="1 samples were NaN"):
        assert np.isfinite(tiny(wave)).all()


@pytest.mark.parametrize(
    ("wave", "rate", "message"),
    [
        (np.zeros((2, 3, 4)), 16_000, "shape"),
        (np.zeros(()), 16_000, "shape"),
        (np.zeros((48_000, 2)), 16_000, "transpose"),
        (np.zeros(10, complex), 16_000, "complex128"),
        (np.zeros(10), 0, "sample rate"),
        (np.zeros(10), 16_000.5, "sample rate"),
    ],
)
def test_input_that_makes_no_sense(tiny: Enhancer, wave: np.ndarray, rate: float, message: str) -> None:
    with pytest.raises(SemambaError, match=message):
        tiny(wave, rate)  # type: ignore[arg-type]


def test_load_from_a_folder_and_names_that_are_none(tiny: Enhancer, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "model", tiny.model, {})
    loaded = semamba.load(str(tmp_path / "model"), device="cpu")
    wave = noise(6000)
    assert np.allclose(loaded(wave), tiny(wave), atol=1e-6)
    assert np.allclose(semamba.enhance(wave, model=str(tmp_path / "model")), tiny(wave), atol=1e-6)
    with pytest.raises(SemambaError, match="no-such"):
        load("no-such-model")


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu" and choose_device(None).type in ("cpu", "cuda")
    with pytest.raises(SemambaError, match="nowhere"):
        choose_device("nowhere")
    if not torch.cuda.is_available():
        with pytest.raises(SemambaError, match="use cpu"):
            choose_device("cuda")


def test_importing_the_package_is_cheap() -> None:
    import subprocess

    code = "import sys, semamba; semamba.__version__; assert not {'torch', 'numpy', 'soundfile'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError):
        _ = semamba.nothing  # type: ignore[attr-defined]
    assert {"load", "enhance"} <= set(dir(semamba))


def test_eight_bits_keep_their_zero(identity: Enhancer) -> None:
    eight = np.random.default_rng(0).integers(0, 256, (2, 5000)).astype(np.uint8)
    assert np.abs(identity(eight).astype(int) - eight).max() <= 1


def test_the_front_door_has_the_error_that_users_catch() -> None:
    with pytest.raises(semamba.SemambaError, match="neither a shipped model nor a folder"):
        semamba.load("no-such-model")
    assert set(semamba.__all__) == set(dir(semamba))
    assert all(getattr(semamba, name) is not None for name in semamba.__all__)
