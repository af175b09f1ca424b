"""PESQ, STOI, ESTOI and SI-SDR: values where they are known, and a clear refusal where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from semamba.errors import SemambaError
from semamba.metrics import intrusive
from semamba.metrics.intrusive import MetricError

pytest.importorskip("pesq")
pytest.importorskip("pystoi")

RATE = 16000


def speech_like(seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    """(n,) harmonics under a syllable rhythm."""
    time = np.arange(round(seconds * RATE)) / RATE
    voice = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 20))
    rhythm = np.clip(np.sin(2 * np.pi * 2.5 * time), 0, None)
    return 0.1 * voice * rhythm + 1e-4 * np.random.default_rng(seed).standard_normal(time.size)


def test_si_sdr_is_the_ratio_that_was_mixed() -> None:
    rng = np.random.default_rng(1)
    clean, noise = rng.standard_normal((2, 8000))
    clean -= clean.mean()
    noise -= noise.mean()
    noise -= clean * (noise @ clean) / (clean @ clean)
    noise *= np.sqrt((clean @ clean) / (noise @ noise)) * 10 ** (-7.5 / 20)
    assert intrusive.si_sdr(clean, 3.0 * (clean + noise) + 0.5) == pytest.approx(7.5, abs=1e-9)


def test_pesq_and_stoi_know_good_from_bad() -> None:
    clean = speech_like()
    noise = np.random.default_rng(2).standard_normal(clean.size)
    good, bad = clean + 0.002 * noise, clean + 0.1 * noise
    assert intrusive.pesq_wb(clean, clean) == pytest.approx(4.644, abs=1e-3)
    assert intrusive.pesq_wb(clean, good) > intrusive.pesq_wb(clean, bad)
    assert intrusive.stoi(clean, clean) == pytest.approx(1.0, abs=1e-6)
    assert intrusive.stoi(clean, good) > intrusive.stoi(clean, bad)
    assert intrusive.stoi(clean, good, extended=True) > intrusive.stoi(clean, bad, extended=True)


@pytest.mark.parametrize("measure", [intrusive.pesq_wb, intrusive.stoi, intrusive.si_sdr])
@pytest.mark.parametrize(
    ("clean", "enhanced", "reason"),
    [
        (np.zeros(RATE), np.ones(RATE), "clean signal is silent"),
        (np.ones(RATE), np.zeros(RATE), "enhanced signal is silent"),
        (np.ones(0), np.ones(0), "empty"),
        (np.ones(RATE), np.ones(RATE - 1), "unequal length"),
        (np.ones(RATE), np.full(RATE, np.nan), "NaN"),
        (np.ones((2, RATE)), np.ones((2, RATE)), "one channel"),
    ],
)
def test_a_hopeless_pair_is_refused(measure, clean, enhanced, reason) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(MetricError, match=reason):
        measure(clean, enhanced)


def test_what_cannot_be_measured_is_never_given_a_number() -> None:
    clean = speech_like()
    with pytest.raises(MetricError, match="1/4 of a second"):
        intrusive.pesq_wb(clean[:2000], clean[:2000])
    with pytest.raises(MetricError, match="ESTOI failed: less than"):
        intrusive.stoi(clean[:4000], clean[:4000], extended=True)
    with pytest.raises(MetricError, match="scaled copy"):
        intrusive.si_sdr(clean, 0.1 * clean)
    with pytest.raises(MetricError, match="constant"):
        intrusive.si_sdr(np.full(100, 0.1), clean[:100])
    with pytest.raises(MetricError, match="16000 Hz"):
        intrusive.pesq_wb(clean, clean, sample_rate=8000)
    long = np.tile(clean, 1 + intrusive.PESQ_SECONDS // 2)
    with pytest.raises(MetricError, match="at most 90 s"):
        intrusive.pesq_wb(long, long)


def test_a_missing_extra_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(SemambaError, match=r"semamba\[eval\]"):
        intrusive.require_extra()
    with pytest.raises(SemambaError, match=r"semamba\[eval\]"):
        intrusive.pesq_wb(np.ones(RATE), np.ones(RATE))
