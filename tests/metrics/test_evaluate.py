"""Scoring of pairs: preparation, failures by name, parallel processes that survive a crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semamba import audio
from semamba.errors import SemambaError
from semamba.metrics.evaluate import (
    METRICS,
    Pair,
    Preparation,
    Scored,
    evaluate_enhancer,
    evaluate_pairs,
    prepare,
    score,
)
from semamba.metrics.intrusive import MetricError
from semamba.metrics.pool import map_isolated

pytest.importorskip("pesq")
pytest.importorskip("pystoi")

RATE = 16000


@pytest.fixture(scope="module")
def signals() -> tuple[np.ndarray, np.ndarray]:
    """Clean and noisy (n,) of 1.5 s."""
    time = np.arange(3 * RATE // 2) / RATE
    voice = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 20))
    clean = 0.1 * voice * np.clip(np.sin(2 * np.pi * 2.5 * time), 0, None)
    noise = np.random.default_rng(0).standard_normal((2, time.size))
    return clean + 1e-4 * noise[0], clean + 0.02 * noise[1]


def test_score_has_every_measure(signals: tuple[np.ndarray, np.ndarray]) -> None:
    found = score(*signals)
    assert tuple(found) == METRICS
    assert all(isinstance(value, float) and np.isfinite(value) for value in found.values())


def test_score_converts_the_rate(signals: tuple[np.ndarray, np.ndarray]) -> None:
    raised = [audio.resample(signal, RATE, 48000) for signal in signals]
    assert score(*raised, sample_rate=48000)["si_sdr"] == pytest.approx(score(*signals)["si_sdr"], abs=0.5)


def test_score_refuses_what_it_cannot_measure(signals: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(MetricError, match="silent"):
        score(signals[0], np.zeros_like(signals[1]))
    with pytest.raises(MetricError, match="1/4 of a second.*STOI failed"):
        score(signals[0][3000:6000], signals[1][3000:6000])


def test_preparation(signals: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noisy = signals
    with pytest.raises(MetricError, match="unequal length: clean has 24000 samples, enhanced has 23900"):
        prepare((clean, RATE), (noisy[:-100], RATE))
    trimmed = prepare((clean, RATE), (noisy[:-100], RATE), Preparation(trim=True))
    assert [signal.size for signal in trimmed] == [23900, 23900]
    assert [s.size for s in prepare((clean, RATE), (audio.resample(noisy, RATE, 44100)[1:], 44100))] == [24000, 24000]
    _, stretched = prepare((clean, RATE), (noisy, RATE), Preparation(pcs=True))
    assert stretched.shape == noisy.shape and not np.allclose(stretched, noisy)
    with pytest.raises(MetricError, match="one channel"):
        prepare((clean, RATE), (np.stack([noisy, noisy]), RATE))


def test_failures_are_named_and_the_others_scored(signals: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    clean, noisy = signals
    (tmp_path / "broken.wav").write_bytes(b"not audio")
    audio.write(tmp_path / "fine.wav", noisy[None].astype(np.float32), RATE)
    pairs = [
        Pair("broken", (clean, RATE), tmp_path / "broken.wav"),
        Pair("silent", (clean, RATE), (np.zeros_like(noisy), RATE)),
        Pair("short", (clean[3000:6000], RATE), (noisy[3000:6000], RATE)),
        Pair("fine", (clean, RATE), tmp_path / "fine.wav"),
    ]
    seen: list[Scored] = []
    found = evaluate_pairs(pairs, on_result=seen.append)
    assert [result.name for result in found] == [pair.name for pair in pairs] and len(seen) == 4
    broken, silent, short, fine = found
    assert "broken.wav" in broken.problems["file"] and not broken.scores
    assert "silent" in silent.problems["file"]
    assert set(short.scores) == {"segsnr", "si_sdr"} and set(short.problems) == set(METRICS) - set(short.scores)
    assert tuple(fine.scores) == METRICS and not fine.problems


def test_enhancer_failures_are_named_too(signals: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    for index, signal in enumerate(signals):
        audio.write(tmp_path / f"{index}.wav", signal[None].astype(np.float32), RATE)

    def enhance(wave: np.ndarray, rate: int) -> np.ndarray:
        if wave.size and abs(wave - signals[0]).max() < 1e-3:
            raise SemambaError("not this one")
        return 0.5 * wave

    files = [(f"{i}.wav", tmp_path / "0.wav", tmp_path / f"{i}.wav") for i in (0, 1)]
    first, second = evaluate_enhancer(files, enhance)
    assert first == Scored("0.wav", problems={"file": "not this one"})
    assert tuple(second.scores) == METRICS


def test_processes_give_the_same_and_know_no_torch(signals: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noisy = signals
    pairs = [Pair(str(gain), (clean, RATE), (gain * noisy, RATE)) for gain in (1.0, 0.5)]
    for parallel, serial in zip(evaluate_pairs(pairs, jobs=2), evaluate_pairs(pairs), strict=True):
        assert (parallel.name, parallel.scores) == (serial.name, pytest.approx(serial.scores, abs=1e-9))
    loaded = "(__import__('semamba.metrics.evaluate'), 'torch' in __import__('sys').modules)[1]"
    assert list(map_isolated(eval, [loaded], 1, repr)) == [(0, False)]


def test_a_crash_costs_only_its_own_item() -> None:
    items = ["1 + 1", "__import__('os')._exit(9)", "2 + 2", "3 + 3"]
    found = dict(map_isolated(eval, items, 2, lambda item: "crashed"))
    assert found == {0: 2, 1: "crashed", 2: 4, 3: 6}


def test_what_the_enhancer_makes_is_what_is_scored(signals: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    for index, signal in enumerate(signals):
        audio.write(tmp_path / f"{index}.wav", signal[None].astype(np.float32), RATE)
    clean, noisy = (audio.read(tmp_path / f"{index}.wav")[0][0] for index in (0, 1))
    files = [("1.wav", tmp_path / "0.wav", tmp_path / "1.wav")]
    (found,) = evaluate_enhancer(files, lambda wave, rate: 0.9 * clean + 0.1 * wave)
    assert found.scores == pytest.approx(score(clean, 0.9 * clean + 0.1 * noisy), abs=1e-4)
    assert found.scores["si_sdr"] > score(clean, noisy)["si_sdr"] + 15
