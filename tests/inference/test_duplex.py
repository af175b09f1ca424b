"""Between a callback and a thread: order, latency, late blocks, bypass, meters, recordings."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semamba import audio
from semamba.errors import SemambaError
from semamba.inference.duplex import Duplex
from semamba.inference.recording import Recording
from semamba.inference.stream import Streamer

from .conftest import make_scale

BLOCK = 128


def streamer(gain: float = 1.0, channels: int = 1) -> Streamer:
    return Streamer(make_scale(True, gain=gain), 16_000, channels, "fixed", block=BLOCK)


def settle(duplex: Duplex) -> None:
    """Until the thread has done all that waits."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if duplex.idle:
            return
        time.sleep(0.001)
    raise AssertionError("the thread does not finish")


def play(duplex: Duplex, wave: np.ndarray) -> np.ndarray:
    """As a sound card would, with a thread that is always in time."""
    out = []
    for start in range(0, wave.shape[1], BLOCK):
        out.append(duplex.exchange(wave[:, start : start + BLOCK]))
        settle(duplex)
    return np.concatenate(out, axis=1)


def noise(channels: int, blocks: int) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((channels, blocks * BLOCK)) * 0.1).astype(np.float32)


@pytest.mark.parametrize("slack", [1, 3])
@pytest.mark.parametrize("channels", [1, 2])
def test_sound_comes_out_after_the_stated_latency(slack: int, channels: int) -> None:
    wave = noise(channels, 30)
    with Duplex(streamer(channels=channels), slack) as duplex:
        made = play(duplex, wave)
    late = duplex.latency_samples
    assert late == streamer().latency_samples + slack * BLOCK
    assert not made[:, :late].any() and np.allclose(made[:, late:], wave[:, :-late], atol=1e-5)
    assert (duplex.status.late, duplex.status.dropped) == (0, 0)


class Slow:
    """A streamer that waits for the test."""

    def __init__(self) -> None:
        self._inner = streamer()
        self.gate = threading.Event()
        self.gate.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def feed(self, block: np.ndarray) -> np.ndarray:
        self.gate.wait(20)
        return self._inner.feed(block)


def test_late_blocks_become_silence_and_the_latency_stays() -> None:
    slow, wave = Slow(), noise(1, 60)
    with Duplex(slow) as duplex:  # type: ignore[arg-type]
        first = play(duplex, wave[:, : 20 * BLOCK])
        slow.gate.clear()
        held = [duplex.exchange(wave[:, (20 + i) * BLOCK : (21 + i) * BLOCK]) for i in range(5)]
        slow.gate.set()
        settle(duplex)
        rest = play(duplex, wave[:, 25 * BLOCK :])
    made, late = np.concatenate([first, *held, rest], axis=1), duplex.latency_samples
    gap = slice(21 * BLOCK, 25 * BLOCK)  # one block was ready
    assert duplex.status.late == 4 and not made[:, gap].any()
    expected = np.concatenate([np.zeros((1, late), np.float32), wave[:, :-late]], axis=1)
    expected[:, gap] = 0
    assert np.allclose(made, expected, atol=1e-5)


def test_a_thread_that_stands_still_costs_no_more_memory() -> None:
    slow, wave = Slow(), noise(1, 1)
    with Duplex(slow) as duplex:  # type: ignore[arg-type]
        slow.gate.clear()
        for _ in range(200):
            duplex.exchange(wave)
        assert len(duplex._waiting) <= 62 and duplex.status.dropped >= 200 - 62 - 1
        slow.gate.set()
        settle(duplex)
        made = play(duplex, noise(1, 30))
    assert np.allclose(made[:, duplex.latency_samples :], noise(1, 30)[:, : -duplex.latency_samples], atol=1e-5)


def test_bypass_keeps_the_latency_and_does_not_click() -> None:
    wave = np.full((1, 60 * BLOCK), 0.5, np.float32)
    with Duplex(streamer(gain=0.1)) as duplex:
        made = [play(duplex, wave[:, : 30 * BLOCK])]
        duplex.bypass = True
        made.append(play(duplex, wave[:, 30 * BLOCK :]))
        assert duplex.status.bypass
    joined = np.concatenate(made, axis=1)
    assert np.allclose(joined[:, 20 * BLOCK : 30 * BLOCK], 0.05, atol=1e-3)
    assert np.allclose(joined[:, 33 * BLOCK :], 0.5)
    assert np.abs(np.diff(joined[:, 20 * BLOCK :])).max() < 0.01


def test_levels_and_attenuation() -> None:
    with Duplex(streamer(gain=0.1)) as duplex:
        play(duplex, np.tile(noise(1, 50), 8))
        status = duplex.status
    assert status.input_level == pytest.approx(-20, abs=1) and status.output_level == pytest.approx(-40, abs=1)
    assert status.attenuation == pytest.approx(20, abs=0.5)
    assert status.seconds == pytest.approx(400 * BLOCK / 16_000) and status.load > 0


def test_an_error_in_the_thread_is_kept() -> None:
    class Broken(Slow):
        broken = False

        def feed(self, block: np.ndarray) -> np.ndarray:
            if self.broken:
                raise RuntimeError("out of order")
            return super().feed(block)

    broken = Broken()
    with Duplex(broken) as duplex:  # type: ignore[arg-type]
        broken.broken = True
        duplex.exchange(noise(1, 1))
        duplex._thread.join(20)
    assert "out of order" in str(duplex.error)


def test_a_restart_forgets_what_waited() -> None:
    with Duplex(streamer()) as duplex:
        play(duplex, noise(1, 20))
        duplex.restart()
        made = play(duplex, np.zeros((1, 20 * BLOCK), np.float32))
    assert not made[:, :BLOCK].any() and made.shape == (1, 20 * BLOCK)


def test_both_sides_are_recorded_at_the_same_time(tmp_path: Path) -> None:
    wave, source = noise(1, 40), streamer(gain=0.5)
    with (
        Recording(str(tmp_path / "talk"), 16_000, 1, source.latency_samples) as recording,
        Duplex(source, sink=recording.put) as duplex,
    ):
        play(duplex, wave)
        assert not (tmp_path / "talk.noisy.wav").exists()
    noisy, enhanced = (audio.read(path)[0] for path in recording.paths)
    assert noisy.shape == enhanced.shape == wave.shape
    assert np.allclose(noisy, wave, atol=1e-4) and np.allclose(enhanced, 0.5 * wave, atol=1e-4)
    with pytest.raises(SemambaError, match="--overwrite"):
        Recording(str(tmp_path / "talk"), 16_000, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["talk.enhanced.wav", "talk.noisy.wav"]


def test_a_recording_that_fails_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SemambaError, match="file"), Recording(str(tmp_path / "file" / "talk"), 16_000, 1):
        raise AssertionError("must not start")


def test_a_restart_in_the_middle_keeps_the_latency() -> None:
    slow, wave = Slow(), noise(1, 40)
    with Duplex(slow) as duplex:
        slow.gate.clear()
        for _ in range(5):
            duplex.exchange(noise(1, 1))
        duplex.restart()
        slow.gate.set()
        settle(duplex)
        made = play(duplex, wave)
    late = duplex.latency_samples
    assert np.allclose(made[:, late:], wave[:, :-late], atol=1e-5)
