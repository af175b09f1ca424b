"""What a pair of waves is brought to before a step: its level, and the signal that the model is trained towards.

Letters: B batch, n samples. Waves are (B, n) float32 at 16 kHz.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from semamba import pcs
from semamba.spectrum import overlap_add

PCS_RMS = 0.06  # at which a target is stretched: mean over 16 clean files of VoiceBank-DEMAND, the paper's corpus


def normalise_pair(noisy: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Both waves (B, n), scaled by one factor per item so that the noisy one has RMS 1 (silent items stay as they are).

    The mixer draws levels over 35 dB. Without this the waveform and spectrum terms would train on the loud items only.
    Models with utterance normalisation get exactly it, and the causal family does not depend on level. Any other model
    must hear the levels it will meet, so its pairs stay as they were mixed.
    """
    level = rms(noisy)
    scale = torch.where(level > 1e-5, 1 / level.clamp(min=1e-5), torch.ones_like(level))
    return noisy * scale, clean * scale


def stretch(wave: Tensor) -> Tensor:
    """`pcs.stretch` on tensors (B, n), stretched at RMS `PCS_RMS` and given back its level; silence stays silence.

    Stretching depends on the level. Models that do not hear levels could not learn a target that does.
    """
    level = rms(wave)
    half, samples = pcs.N_FFT // 2, wave.shape[-1]
    window = torch.hamming_window(pcs.N_FFT, periodic=False, device=wave.device)
    factors = torch.from_numpy(pcs.factors()).to(wave.device)
    # zeros around the signal, and as many frames as `pcs.Stretcher` has
    total = (samples + half) // pcs.HOP * pcs.HOP + pcs.N_FFT
    padded = functional.pad(wave * (PCS_RMS / level.clamp(min=1e-8)), (half, total - half - samples))
    frames = torch.fft.rfft(padded.unfold(-1, pcs.N_FFT, pcs.HOP) * window)  # (B, T, F)
    size = frames.abs()
    gain = torch.expm1(factors * torch.log1p(size)) / size.clamp(min=1e-12)
    frames = torch.fft.irfft(frames * gain, n=pcs.N_FFT) * window  # (B, T, N_FFT)
    squares = window.square().expand(1, frames.shape[1], pcs.N_FFT)
    stretched = overlap_add(frames, pcs.HOP) / overlap_add(squares, pcs.HOP)
    stretched = stretched[:, half : half + samples]
    return stretched * (level / rms(stretched).clamp(min=1e-8))


def rms(wave: Tensor) -> Tensor:
    """(B, n) -> (B, 1)."""
    return wave.square().mean(-1, keepdim=True).sqrt()
