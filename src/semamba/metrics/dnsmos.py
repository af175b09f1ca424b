"""DNSMOS P.835: ratings of a recording without a reference (Reddy et al. 2022), and its P.808 forerunner.

The two networks come as ONNX files with the package `speechmos` (extra `dnsmos`), whose own runner needs librosa,
pandas and more. This one needs onnxruntime, and gives the same values: windows of 9.01 s every second, their ratings
averaged; a shorter recording is repeated. Letters: n samples, T frames, M mel bands.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semamba.errors import SemambaError
from semamba.metrics.intrusive import MetricError
from semamba.sessions import open_session

SAMPLE_RATE = 16000  # Hz
WINDOW = int(9.01 * SAMPLE_RATE)
RATINGS = ("dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl", "dnsmos_p808")  # 1 to 5: speech, background, overall; P.808

FFT, HOP, MELS = 321, 160, 120
# Calibration of the published runner: raw network output to rating, highest power first.
_CURVES = {
    "dnsmos_sig": (-0.08397278, 1.22083953, 0.0052439),
    "dnsmos_bak": (-0.13166888, 1.60915514, -0.39604546),
    "dnsmos_ovrl": (-0.06766283, 1.11546468, 0.04602535),
}

Wave = NDArray[np.floating[Any]]


def rate(wave: Wave) -> dict[str, float]:
    """Each of RATINGS for a signal (n,) at 16 kHz in ±1. Raises MetricError when it is empty, silent or not finite.

    Raises SemambaError naming the extra when the networks are not installed.
    """
    wave = np.asarray(wave, dtype=np.float32)
    if wave.ndim != 1 or not wave.size:
        raise MetricError(f"DNSMOS takes one channel with samples, got shape {wave.shape}")
    if not np.isfinite(wave).all():
        raise MetricError("the signal holds NaN or infinite samples")
    if not wave.any():
        raise MetricError("the signal is silent")
    wave = np.clip(wave, -1, 1)
    primary, p808 = _networks()
    rows = []
    for window in windows(wave):
        sig, bak, ovrl = primary.run(None, {"input_1": window[None]})[0][0]
        raw = {"dnsmos_sig": sig, "dnsmos_bak": bak, "dnsmos_ovrl": ovrl}
        mel = log_mel(window[:-HOP])[None].astype(np.float32)
        rows.append(
            [float(np.polyval(_CURVES[name], raw[name])) for name in _CURVES]
            + [float(p808.run(None, {"input_1": mel})[0][0][0])]
        )
    return dict(zip(RATINGS, np.mean(rows, axis=0).tolist(), strict=True))


def require_extra() -> None:
    """Raise SemambaError with the install command when the networks or onnxruntime are missing."""
    _networks()


def windows(wave: Wave) -> list[Wave]:
    """Stretches of WINDOW samples, one second apart, as the published runner cuts them."""
    while wave.size < WINDOW:
        wave = np.concatenate([wave, wave])
    count = int(wave.size // SAMPLE_RATE - 9.01) + 1
    starts = [index * SAMPLE_RATE for index in range(count)]
    return [wave[start : start + WINDOW] for start in starts if start + WINDOW <= wave.size]


def log_mel(wave: Wave) -> NDArray[np.float64]:
    """(n,) -> (T, M): power mel spectrum in dB below its maximum, 80 dB deep, as (dB + 40) / 40."""
    padded = np.pad(wave.astype(np.float64), FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)
    power = np.abs(np.fft.rfft(frames * hann, axis=1)) ** 2
    mel = power @ mel_filters().T
    decibel = 10 * np.log10(np.maximum(mel, 1e-10)) - 10 * np.log10(max(float(mel.max()), 1e-10))
    return (np.maximum(decibel, -80.0) + 40) / 40


@cache
def mel_filters() -> NDArray[np.float64]:
    """(M, FFT // 2 + 1) triangles of equal area on the mel scale of Slaney's Auditory Toolbox, 0 Hz to 8 kHz."""
    bins = np.arange(FFT // 2 + 1) * SAMPLE_RATE / FFT
    edges = _hertz(np.linspace(0, _mel(SAMPLE_RATE / 2), MELS + 2))
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]


# Slaney's scale: linear to 1 kHz (15 mel), then 27 steps a factor of 6.4.
_LINEAR, _CORNER, _STEP = 200 / 3, 1000.0, np.log(6.4) / 27


def _mel(hertz: float) -> float:
    return hertz / _LINEAR if hertz < _CORNER else _CORNER / _LINEAR + float(np.log(hertz / _CORNER)) / _STEP


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    corner = _CORNER / _LINEAR
    return np.where(mel < corner, mel * _LINEAR, _CORNER * np.exp(_STEP * (np.maximum(mel, corner) - corner)))


@cache
def _networks() -> tuple[Any, Any]:
    found = importlib.util.find_spec("speechmos")  # its modules are not imported: they want librosa
    if found is None or not found.submodule_search_locations:
        raise SemambaError("DNSMOS needs the package speechmos: pip install 'semamba[dnsmos]'")
    folder = Path(found.submodule_search_locations[0]) / "dnsmos_models"
    return open_session(folder / "sig_bak_ovr.onnx", 1, "dnsmos"), open_session(folder / "model_v8.onnx", 1, "dnsmos")
