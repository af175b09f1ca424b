"""`semamba.spectrum` in NumPy: the same framing, windows and compression, sample by sample.

Letters: C channels, n samples, T frames, F bins. A spectrum is (C, T, F, 2), real and imaginary parts, float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


class Framing:
    """Analysis and synthesis for one `stft` section of a description (the fields of `semamba.spectrum.StftConfig`)."""

    def __init__(self, stft: Mapping[str, Any]) -> None:
        self.n_fft, self.hop = int(stft["n_fft"]), int(stft["hop_length"])
        self.overlap = self.n_fft - self.hop
        self.causal = stft["framing"] == "causal"
        self.compression, self.power = str(stft["compression"]), float(stft["power"])
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.n_fft) / self.n_fft)
        if stft["window"] == "sqrt_hann":
            window = np.sqrt(window)
        total = np.square(window).reshape(-1, self.hop).sum(0)
        self.window = window.astype(np.float32)
        self.synthesis_window = (window / np.tile(total, self.n_fft // self.hop)).astype(np.float32)

    def analyse(self, wave: Array) -> Array:
        """(C, n) -> (C, T, F, 2), centred framing: frame t is centred on sample t * hop, edges reflected."""
        half = self.n_fft // 2
        wave = np.pad(wave, ((0, 0), (0, -wave.shape[1] % self.hop)))
        mode: Any = "reflect" if wave.shape[1] > half else "constant"
        return self._transform(np.pad(wave, ((0, 0), (half, half)), mode=mode))

    def synthesise(self, spectrum: Array, length: int) -> Array:
        """Inverse of `analyse`: (C, T, F, 2) -> (C, length)."""
        half = self.n_fft // 2
        span = slice(half, half + length)
        wave = self._overlap_add(self._frames(spectrum) * self.window)[:, span]
        squares = np.broadcast_to(np.square(self.window), (1, spectrum.shape[1], self.n_fft))
        return wave / self._overlap_add(squares)[:, span]

    def analyse_stream(self, block: Array, tail: Array | None) -> tuple[Array, Array]:
        """Next whole hops (C, k * hop) -> (C, k, F, 2) and the new tail (C, overlap); None starts with silence."""
        if tail is None:
            tail = np.zeros((block.shape[0], self.overlap), np.float32)
        wave = np.concatenate([tail, block], axis=1)
        return self._transform(wave), wave[:, wave.shape[1] - self.overlap :]

    def synthesise_stream(self, spectrum: Array, tail: Array | None) -> tuple[Array, Array]:
        """Next frames (C, k, F, 2) -> finished samples (C, k * hop) and the unfinished tail (C, overlap)."""
        wave = self._overlap_add(self._frames(spectrum) * self.synthesis_window)
        if tail is not None:
            wave[:, : self.overlap] += tail
        finished = spectrum.shape[1] * self.hop
        return wave[:, :finished], wave[:, finished:]

    def _transform(self, wave: Array) -> Array:
        frames = np.lib.stride_tricks.sliding_window_view(wave, self.n_fft, axis=1)[:, :: self.hop]
        bins = np.fft.rfft(frames * self.window)
        return self._compress(np.stack([bins.real, bins.imag], axis=-1).astype(np.float32))

    def _frames(self, spectrum: Array) -> Array:
        bins = self._decompress(spectrum)
        return np.fft.irfft(bins[..., 0] + 1j * bins[..., 1], n=self.n_fft).astype(np.float32)

    def _overlap_add(self, frames: Array) -> Array:
        channels, count, _ = frames.shape
        parts = self.n_fft // self.hop
        pieces = frames.reshape(channels, count, parts, self.hop)
        wave = np.zeros((channels, count + parts - 1, self.hop), np.float32)
        for part in range(parts):  # part p of frame t lands on hop t + p
            wave[:, part : part + count] += pieces[:, :, part]
        return wave.reshape(channels, -1)

    def _compress(self, spectrum: Array) -> Array:
        if self.compression == "none":
            return spectrum
        square = np.square(spectrum).sum(-1, keepdims=True) + np.float32(1e-9)
        if self.compression == "power":
            return spectrum * square ** np.float32((self.power - 1) / 2)
        size = np.sqrt(square)
        return spectrum * (np.log1p(size) / size)

    def _decompress(self, spectrum: Array) -> Array:
        if self.compression == "none":
            return spectrum
        square = np.square(spectrum).sum(-1, keepdims=True)
        if self.compression == "power":
            return spectrum * (square + np.float32(1e-20)) ** np.float32((1 / self.power - 1) / 2)
        size = np.sqrt(square + np.float32(1e-9))
        return spectrum * (np.expm1(size) / size)
