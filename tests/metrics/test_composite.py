"""Composite measures: each vectorised step against a plain restatement, and the whole against reference values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from semamba.metrics import composite
from semamba.metrics.intrusive import MetricError

RNG = np.random.default_rng(0)


def noise_pair(samples: int, ratio: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    clean = RNG.standard_normal(samples)
    return clean, clean + ratio * RNG.standard_normal(samples)


def test_prediction_filter_solves_the_normal_equations() -> None:
    frames = RNG.standard_normal((5, composite.WINDOW)) * np.hanning(composite.WINDOW)
    r = composite._autocorrelation(frames)
    np.testing.assert_allclose(r[0, 3], np.correlate(frames[0], frames[0], "full")[composite.WINDOW + 2])
    filters = composite._prediction_filter(r)
    order = np.arange(composite.ORDER)
    for lags, found in zip(r, filters, strict=True):
        matrix = lags[np.abs(order[:, None] - order)]
        np.testing.assert_allclose(found, np.concatenate([[1.0], -np.linalg.solve(matrix, lags[1:])]), atol=1e-9)


def test_nearest_peak_equals_the_search() -> None:
    level = RNG.standard_normal((20, 25)).round(1)
    slope = np.diff(level, axis=1)
    found = composite._nearest_peak(level, slope)
    for t in range(20):
        for k in range(24):
            n = k
            if slope[t, k] > 0:
                while n < 24 and slope[t, n] > 0:
                    n += 1
                expected = level[t, n - 1]
            else:
                while n >= 0 and slope[t, n] <= 0:
                    n -= 1
                expected = level[t, n + 1]
            assert found[t, k] == expected


def test_segmental_snr_is_the_clamped_mean_over_frames() -> None:
    clean, enhanced = noise_pair(4000)
    enhanced[2000:2600] = clean[2000:2600]  # a perfect frame counts as 35 dB
    window = np.hanning(482)[1:-1]
    values = []
    for start in range(0, 120 * ((4000 - 480) // 120), 120):
        c, e = clean[start : start + 480] * window, enhanced[start : start + 480] * window
        values.append(np.clip(10 * np.log10((c @ c) / ((c - e) @ (c - e) + 1e-16)), -10, 35))
    assert composite.segmental_snr(clean, enhanced) == pytest.approx(np.mean(values), abs=1e-6)
    assert max(values) == 35


def test_a_signal_scores_perfectly_against_itself() -> None:
    clean, _ = noise_pair(8000)
    segsnr, llr, wss = composite.frame_measures(clean, clean)
    assert np.all(segsnr == 35) and np.all(wss == 0)
    np.testing.assert_allclose(llr, 0, atol=1e-12)
    assert composite.composite(clean, clean, pesq=4.64)["csig"] == 5.0


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    clean, enhanced = noise_pair(9000)
    whole = composite.composite(clean, enhanced, pesq=2.0)
    monkeypatch.setattr(composite, "BLOCK", 7)
    assert composite.composite(clean, enhanced, pesq=2.0) == pytest.approx(whole, abs=1e-9)


def test_digital_silence_inside_a_signal_is_measured() -> None:
    clean, enhanced = noise_pair(16000, ratio=0.1)
    clean[4000:9000] = 0.0
    enhanced[6000:9000] = 0.0
    assert all(np.isfinite(value) for value in composite.composite(clean, enhanced, pesq=2.0).values())


def test_too_short_is_refused() -> None:
    with pytest.raises(MetricError, match="at least 600 samples"):
        composite.composite(*noise_pair(599), pesq=2.0)


def test_reference_values(shared_dir: Path) -> None:
    """All eight measures on real noisy speech; the reference was checked equal to the CMGAN script."""
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    from semamba import audio
    from semamba.metrics.evaluate import METRICS, score

    reference = json.loads((shared_dir / "reference/metrics_valid_noisy.json").read_text())["files"]
    folder = shared_dir / "data/valid/paired"
    for name, expected in reference.items():
        signals = [audio.read(folder / part / name.replace(".wav", ".flac"))[0][0] for part in ("clean", "noisy")]
        found = score(*signals)
        assert tuple(found) == METRICS
        found["sisdr"] = found.pop("si_sdr")
        assert found == pytest.approx(expected, abs=1e-6)


def test_values_where_no_reference_is_at_hand() -> None:
    """Computed where the comparison with the published script passes."""
    rng = np.random.default_rng(7)
    clean = rng.standard_normal(16000) * np.sin(np.arange(16000) / 900)
    noisy = clean + 0.1 * rng.standard_normal(16000)
    expected = {"csig": 3.969937, "cbak": 3.265915, "covl": 2.781848, "segsnr": 14.784066}
    assert composite.composite(clean, noisy, 1.5) == pytest.approx(expected, abs=1e-4)
