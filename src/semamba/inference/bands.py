"""What lies above the model's 8 kHz: kept, and turned down as the model turns down the band just below.

Letters: C channels, n samples at 16 kHz, T gains, one every HOP samples, gain t at sample t * HOP.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]

SIZE, HOP = 512, 256  # samples at 16 kHz
# 4 to 7.2 kHz: above that the resampler's own filter already falls.
_FIRST, _LAST = 4000 * SIZE // 16000, 7200 * SIZE // 16000
_SMOOTH = np.array([0.25, 0.5, 0.25])  # over neighbouring frames, so that the gain neither flutters nor lags
# Energy of a frame below which there is nothing to compare (about -120 dBFS): the gain goes to 1.
_FLOOR = 1e-9


class GainTrack:
    """Gain of the enhanced over the noisy signal between 4 and 7.2 kHz, never above 1, in blocks."""

    def __init__(self, channels: int) -> None:
        silence = np.zeros((channels, SIZE // 2), np.float32)  # frame t is centred on sample t * HOP
        self._noisy, self._enhanced = silence, silence.copy()
        self._energies = np.zeros((2, channels, 0))  # two frames of context for the smoothing
        self._window = np.hanning(SIZE + 1)[:-1].astype(np.float32)

    def ready(self, taken: Counts) -> Counts:
        """How many gains have come out when `taken` samples have gone in: a frame waits for the one after it."""
        return np.maximum(0, taken // HOP - 1)

    def push(self, noisy: Samples, enhanced: Samples) -> npt.NDArray[np.float64]:
        """Two blocks (C, k) that belong together -> the next gains (C, T)."""
        self._noisy = np.concatenate([self._noisy, noisy], axis=1)
        self._enhanced = np.concatenate([self._enhanced, enhanced], axis=1)
        frames = (self._noisy.shape[1] - SIZE) // HOP + 1
        if frames <= 0:
            return np.zeros((noisy.shape[0], 0))
        new = np.stack([self._band_energy(self._noisy, frames), self._band_energy(self._enhanced, frames)])
        self._noisy, self._enhanced = self._noisy[:, frames * HOP :].copy(), self._enhanced[:, frames * HOP :].copy()
        if self._energies.shape[2] == 0:
            new = np.concatenate([new[..., :1], new], axis=2)  # the first frame is its own past
        energies = np.concatenate([self._energies, new], axis=2)
        self._energies = energies[..., -2:].copy()
        return _gains(energies)

    def finish(self) -> npt.NDArray[np.float64]:
        """Gains up to and beyond the last sample."""
        silence = np.zeros((self._noisy.shape[0], SIZE + HOP), np.float32)
        return self.push(silence, silence)

    def _band_energy(self, wave: Samples, frames: int) -> npt.NDArray[np.float64]:
        windows = np.lib.stride_tricks.sliding_window_view(wave, SIZE, axis=1)[:, : frames * HOP : HOP]
        band = np.fft.rfft(windows[:, :frames] * self._window)[..., _FIRST : _LAST + 1]
        return (band.real.astype(np.float64) ** 2 + band.imag.astype(np.float64) ** 2).sum(-1)


class GainCurve:
    """Gains at frames become gains at samples of any rate, by straight lines between frames."""

    def __init__(self, channels: int, sample_rate: int) -> None:
        self._rate = sample_rate
        self._step = 16_000 / sample_rate / HOP  # frames for each sample
        self._gains = np.ones((channels, 0))
        self._first = 0  # index of the first gain kept
        self._position = 0  # samples given out

    def reach(self, gains: Counts) -> Counts:
        """How many samples lie before the last of so many gains."""
        return np.maximum(0, (gains - 1) * HOP * self._rate // 16_000)

    def push(self, gains: npt.NDArray[np.float64]) -> None:
        self._gains = np.concatenate([self._gains, gains], axis=1)

    @property
    def ready(self) -> int:
        """Samples for which the gain is known and not yet taken."""
        return int(self.reach(np.array(self._first + self._gains.shape[1]))) - self._position

    def take(self, count: int) -> Samples:
        """Gains of the next `count` samples, (C, count)."""
        at = (self._position + np.arange(count)) * self._step - self._first
        index = np.clip(at.astype(np.int64), 0, max(0, self._gains.shape[1] - 2))
        share = np.clip(at - index, 0, 1)
        following = np.minimum(index + 1, self._gains.shape[1] - 1)
        result = self._gains[:, index] * (1 - share) + self._gains[:, following] * share
        self._position += count
        old = max(0, min(int(self._position * self._step) - self._first, self._gains.shape[1] - 1))
        self._gains, self._first = self._gains[:, old:], self._first + old
        return result.astype(np.float32)


def _gains(energies: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(2, C, T + 2) energies of noisy and enhanced -> (C, T)."""
    count = energies.shape[2] - 2
    if count <= 0:
        return np.zeros((energies.shape[1], 0))
    smooth = sum(weight * energies[..., i : i + count] for i, weight in enumerate(_SMOOTH)) + _FLOOR
    return np.minimum(1.0, np.sqrt(smooth[1] / smooth[0]))  # type: ignore[index]
