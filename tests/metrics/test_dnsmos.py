"""DNSMOS: the values of the published runner, its windows, what cannot be rated."""

from __future__ import annotations

import numpy as np
import pytest

from semamba.metrics import dnsmos
from semamba.metrics.intrusive import MetricError

RATE = 16000


def recording(seconds: float) -> np.ndarray:
    """(n,) float32: a syllable-like buzz in noise, the same on every machine."""
    time = np.arange(int(seconds * RATE)) / RATE
    voice = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 20))
    noise = np.random.default_rng(0).standard_normal(time.size)
    return (0.1 * voice * np.clip(np.sin(2 * np.pi * 2.5 * time), 0, None) + 0.01 * noise).astype(np.float32)


# Printed by `speechmos.dnsmos.run(recording(seconds), 16000)` of speechmos 0.0.1.1 with librosa 0.11.
PUBLISHED = {
    2.0: (2.71541, 2.00253, 1.65387, 2.30218),
    9.5: (2.86484, 2.11357, 1.77905, 2.33853),
    12.3: (2.88924, 2.07668, 1.75669, 2.35276),
}


@pytest.mark.parametrize("seconds", PUBLISHED)
def test_equal_to_the_published_runner(seconds: float) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("speechmos")
    found = dnsmos.rate(recording(seconds))
    assert tuple(found) == dnsmos.RATINGS
    assert list(found.values()) == pytest.approx(PUBLISHED[seconds], abs=1e-3)


def test_equal_to_the_package_beside_it() -> None:
    pytest.importorskip("librosa")
    package = pytest.importorskip("speechmos.dnsmos")
    wave = recording(10.5)
    published = package.run(wave, RATE)
    names = ("sig_mos", "bak_mos", "ovrl_mos", "p808_mos")
    assert list(dnsmos.rate(wave).values()) == pytest.approx([published[name] for name in names], abs=1e-3)


@pytest.mark.parametrize(("seconds", "count"), [(0.3, 1), (9.5, 1), (10.5, 1), (11.5, 2), (30.0, 21)])
def test_windows(seconds: float, count: int) -> None:
    found = dnsmos.windows(recording(seconds))
    assert len(found) == count and {window.size for window in found} == {dnsmos.WINDOW}


def test_mel_filters_have_equal_area_and_leave_no_gap() -> None:
    filters = dnsmos.mel_filters()
    assert filters.shape == (dnsmos.MELS, dnsmos.FFT // 2 + 1)
    wide = filters[100:]  # lower filters are narrower than two bins
    assert wide.sum(1) * RATE / dnsmos.FFT == pytest.approx(np.ones(20), abs=0.05)
    assert (filters[:, 1:-1].sum(0) > 0).all()


@pytest.mark.parametrize("wave", [np.zeros(0), np.zeros(RATE), np.full(RATE, np.nan), np.ones((2, RATE))])
def test_what_cannot_be_rated(wave: np.ndarray) -> None:
    with pytest.raises(MetricError):
        dnsmos.rate(wave)
