"""Waveform <-> compressed complex spectrum: framing, windows, compression, exact lengths.

Letters: B batch, n samples, T frames, F = n_fft // 2 + 1 frequency bins.
A spectrum is a real tensor (B, T, F, 2) holding (re, im). Its magnitude is compressed, its phase is not:
`power` keeps |X|^p e^{j phase} (p = 0.3: MP-SENet, SEMamba), `log1p` keeps log(1 + |X|) e^{j phase}.

Two framings:
- `centred`: frame t is centred on sample t * hop_length, edges reflected (torch.stft's `center=True`);
- `causal`: frame t ends with sample (t + 1) * hop_length, so that it can be computed as samples arrive.
  An output sample is complete n_fft - 1 samples after its input at the latest: that is the latency.

Synthesis divides by the overlapping sum of squared windows, so analysis followed by synthesis is the identity
for every window and hop (weighted overlap-add, Griffin & Lim 1984). That sum is the same for every hop but at
the edges of the centred framing, where fewer frames overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Keeps the slope of r^p finite at r = 0; in units of a squared STFT magnitude of a signal with RMS near 1.
_EPS = 1e-9


@dataclass(frozen=True)
class StftConfig:
    """Everything that fixes a spectrum. Lengths in samples at 16 kHz."""

    n_fft: int = 512
    hop_length: int = 256
    window: Literal["hann", "sqrt_hann"] = "hann"
    framing: Literal["centred", "causal"] = "centred"
    compression: Literal["power", "log1p", "none"] = "power"
    power: float = 0.3

    @property
    def n_bins(self) -> int:
        return self.n_fft // 2 + 1

    @property
    def overlap(self) -> int:
        """Samples that consecutive frames share."""
        return self.n_fft - self.hop_length


class Spectrum(nn.Module):
    """Analysis and synthesis for one StftConfig; holds the two windows, no parameters."""

    window: Tensor
    synthesis_window: Tensor

    def __init__(self, config: StftConfig) -> None:
        super().__init__()
        if config.n_fft % config.hop_length or config.overlap == 0:  # the windows are zero at an end
            raise ValueError(f"hop_length {config.hop_length} must divide n_fft {config.n_fft} and be shorter")
        self.config = config
        window = torch.hann_window(config.n_fft, dtype=torch.float64)
        if config.window == "sqrt_hann":
            window = window.sqrt()
        total = window.square().reshape(-1, config.hop_length).sum(0)  # (hop,)
        synthesis = window / total.repeat(config.n_fft // config.hop_length)
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("synthesis_window", synthesis.float(), persistent=False)

    def frames(self, length: int) -> int:
        """Frames of a signal of `length` samples."""
        hops = -(-length // self.config.hop_length)
        return hops + (1 if self.config.framing == "centred" else self.config.overlap // self.config.hop_length)

    def analyse(self, wave: Tensor) -> Tensor:
        """(B, n) -> compressed spectrum (B, frames(n), F, 2)."""
        cfg, length = self.config, wave.shape[-1]
        padding = -length % cfg.hop_length
        if cfg.framing == "causal":
            return self.analyse_stream(F.pad(wave, (0, padding + cfg.overlap)))[0]
        half = cfg.n_fft // 2
        # The tail is completed with zeros to whole hops, so that synthesis can return every sample.
        wave = F.pad(wave, (0, padding))
        wave = F.pad(wave, (half, half), mode="reflect" if wave.shape[-1] > half else "constant")
        return self._transform(wave.unfold(-1, cfg.n_fft, cfg.hop_length))

    def synthesise(self, spectrum: Tensor, length: int) -> Tensor:
        """Inverse of `analyse`: (B, T, F, 2) -> (B, length)."""
        cfg = self.config
        if cfg.framing == "causal":
            return self.synthesise_stream(spectrum)[0][:, cfg.overlap : cfg.overlap + length]
        half = cfg.n_fft // 2
        wave = overlap_add(self._frames(spectrum) * self.window, cfg.hop_length)
        squares = self.window.square().expand(1, spectrum.shape[1], cfg.n_fft)
        wave, total = wave[:, half : half + length], overlap_add(squares, cfg.hop_length)[:, half : half + length]
        return wave / total

    def analyse_stream(self, block: Tensor, tail: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Next whole hops (B, k * hop_length) -> spectrum (B, k, F, 2) and the new tail (B, overlap).

        `tail` is what the previous call returned; None starts with silence.
        """
        cfg = self.config
        if tail is None:
            tail = block.new_zeros(block.shape[0], cfg.overlap)
        wave = torch.cat([tail, block], dim=-1)
        if block.shape[-1] == 0:
            return wave.new_zeros(block.shape[0], 0, cfg.n_bins, 2), tail
        return self._transform(wave.unfold(-1, cfg.n_fft, cfg.hop_length)), wave[:, wave.shape[-1] - cfg.overlap :]

    def synthesise_stream(self, spectrum: Tensor, tail: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Next frames (B, k, F, 2) -> finished samples (B, k * hop_length) and the unfinished tail (B, overlap).

        The output lags the input by `overlap` samples: the first `overlap` ones belong to the silence before the start.
        """
        cfg = self.config
        if spectrum.shape[1] == 0:
            return spectrum.new_zeros(spectrum.shape[0], 0), (
                spectrum.new_zeros(spectrum.shape[0], cfg.overlap) if tail is None else tail
            )
        wave = overlap_add(self._frames(spectrum) * self.synthesis_window, cfg.hop_length)
        if tail is not None:
            wave = torch.cat([wave[:, : cfg.overlap] + tail, wave[:, cfg.overlap :]], dim=-1)
        finished = spectrum.shape[1] * cfg.hop_length
        return wave[:, :finished], wave[:, finished:]

    def _frames(self, spectrum: Tensor) -> Tensor:
        """(B, T, F, 2) -> frames in time (B, T, n_fft), not yet windowed."""
        bins = decompress(spectrum.float(), self.config)
        return torch.fft.irfft(torch.view_as_complex(bins.contiguous()), n=self.config.n_fft)

    def _transform(self, frames: Tensor) -> Tensor:
        bins = torch.view_as_real(torch.fft.rfft(frames.float() * self.window))  # (B, T, F, 2)
        return compress(bins, self.config)


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """(B, T, n_fft) -> (B, (T - 1) * hop + n_fft); n_fft must be a multiple of hop."""
    batch, count, size = frames.shape
    parts = size // hop
    pieces = frames.reshape(batch, count, parts, hop)
    # Part p of frame t lands on hop t + p: one shifted addition for each part of a frame.
    wave = F.pad(pieces[:, :, 0], (0, 0, 0, parts - 1))
    for part in range(1, parts):
        wave = wave + F.pad(pieces[:, :, part], (0, 0, part, parts - 1 - part))
    return wave.reshape(batch, -1)


def compress(spectrum: Tensor, config: StftConfig) -> Tensor:
    """Compress the magnitude of (..., 2) pairs, keep the phase."""
    if config.compression == "none":
        return spectrum
    square = spectrum.square().sum(-1, keepdim=True)
    if config.compression == "power":
        return spectrum * (square + _EPS).pow((config.power - 1) / 2)
    size = (square + _EPS).sqrt()
    return spectrum * (torch.log1p(size) / size)


def decompress(spectrum: Tensor, config: StftConfig) -> Tensor:
    """Inverse of `compress`."""
    if config.compression == "none":
        return spectrum
    square = spectrum.square().sum(-1, keepdim=True)
    if config.compression == "power":
        return spectrum * (square + 1e-20).pow((1 / config.power - 1) / 2)
    size = (square + _EPS).sqrt()
    return spectrum * (torch.expm1(size) / size)


def magnitude(spectrum: Tensor) -> Tensor:
    """|.| of (..., 2) pairs with a finite gradient at zero; still compressed."""
    return (spectrum.square().sum(-1) + 1e-12).sqrt()


def phase(spectrum: Tensor) -> Tensor:
    """Angle of (..., 2) pairs in radians, (-pi, pi]; the gradient at zero is kept finite."""
    real, imag = spectrum.unbind(-1)
    tiny = (real.abs() < 1e-8) & (imag.abs() < 1e-8)
    return torch.atan2(imag, torch.where(tiny, torch.full_like(real, 1e-8), real))
